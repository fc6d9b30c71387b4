"""The words both wings share: what is sent (Request), what the wire said (Exchange), and the Row of it.

A Row is one planned request. Its instants are integer nanoseconds since the trial's T0 on the sending
host's monotonic clock; nothing here subtracts two of them (`analysis/metrics.py` does).
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from itertools import accumulate, chain
from typing import Any, NamedTuple, Protocol, TypeVar

import pyarrow as pa

SCHEMA_VERSION = 1
ERROR_MESSAGE_CHARS = 500
MAX_TOKENS = ("max_new_tokens", "max_completion_tokens", "max_tokens")
"""The parameters that bound a completion, as the dialects call it; a request has at most one of them."""


def max_tokens(parameters: Mapping[str, Any]) -> int | None:
    """The most tokens that `parameters` ask for, by whichever name; None where they do not say."""
    return next((parameters[name] for name in MAX_TOKENS if name in parameters), None)


class Outcome(StrEnum):
    """How a planned request ended; everything but `ok` is a failure, and stays in every denominator."""

    OK = "ok"
    THROTTLED = "throttled"
    SERVER_TIMEOUT = "server_timeout"
    CLIENT_TIMEOUT = "client_timeout"
    MODEL_ERROR = "model_error"
    STREAM_ERROR = "stream_error"
    TRUNCATED = "truncated"
    PROTOCOL_ERROR = "protocol_error"
    CONNECTION_ERROR = "connection_error"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    LOST = "lost"


class Phase(StrEnum):
    """Where in its trial a request was planned; only `measure` rows become numbers."""

    WARMUP = "warmup"
    MEASURE = "measure"
    DRAIN = "drain"


class Source(StrEnum):
    """By which means tokens were counted, best first."""

    SERVER = "server"
    TOKENIZER = "tokenizer"
    ESTIMATE = "estimate"


def estimated_tokens(words: int) -> int:
    """The tokens of so many words between white space, rounded up: four thirds, a rule of thumb for English."""
    return -(-words * 4 // 3)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to complete and how many tokens it has, by the means named in `tokens_source`.

    `max_tokens`, where it has its own, is the most that its completion may have.
    """

    text: str
    tokens: int
    tokens_source: str
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One body ready for the wire; `prompt_id` hashes the body, `max_tokens` is the most it asks for.

    `body_sha256`, in hex, is what a signature needs of the body: made here, before any clock runs.
    """

    body: bytes
    prompt_id: str
    prompt: Prompt
    max_tokens: int | None = None
    body_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "body_sha256", sha256(self.body).hexdigest())


class Exchange(NamedTuple):
    """What the wire said about one request; instants are absolute nanoseconds of the client's clock.

    `chunk_ns` has one entry per chunk that carried tokens, in order; `chunk_tokens` counts them likewise, or is
    None where the server does not say how many tokens a chunk carries.
    """

    outcome: Outcome
    sent_ns: int | None = None
    first_byte_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    end_ns: int | None = None
    chunk_ns: Sequence[int] = ()
    chunk_tokens: Sequence[int] | None = None
    http_status: int | None = None
    error_code: str | None = None
    original_status: int | None = None
    error_message: str | None = None
    request_id: str | None = None
    variant: str | None = None
    connection_reused: bool | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens_source: str | None = None
    finish_reason: str | None = None
    echoed_prompt: bool | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    completion: str | None = None


R = TypeVar("R")


class Client(Protocol[R]):
    """What the load loop needs of a client: `send` puts a request on the wire, `read` makes sense of the reply.

    Neither raises for a request that failed. `send` returns when the last byte is stamped, having parsed
    nothing; `read` parses in small steps and gives the loop back between them.
    """

    async def send(self, request: Request) -> R: ...

    async def read(self, request: Request, reply: R) -> Exchange: ...


class Row(NamedTuple):
    """One planned request; the columns are public (README, run directory)."""

    trial_id: str
    repeat: int
    seq: int
    attempt: int
    experiment: str
    payload: str
    load: str
    actor: str
    host: str
    phase: str
    planned_ns: int
    sent_ns: int | None
    first_byte_ns: int | None
    first_token_ns: int | None
    last_token_ns: int | None
    end_ns: int | None
    chunk_ns: Sequence[int]
    chunk_tokens: Sequence[int] | None
    outcome: str
    http_status: int | None
    error_code: str | None
    original_status: int | None
    error_message: str | None
    request_id: str | None
    variant: str | None
    connection_reused: bool | None
    prompt_id: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    max_tokens: int | None
    prompt_tokens_source: str | None
    completion_tokens_source: str | None
    finish_reason: str | None
    echoed_prompt: bool | None
    request_bytes: int
    response_bytes: int
    prompt_text: str | None
    completion_text: str | None


_INSTANT = {"unit": "ns since the trial's T0"}

REQUESTS = pa.schema(
    [
        pa.field("trial_id", pa.string(), False),
        pa.field("repeat", pa.int32(), False),
        pa.field("seq", pa.int64(), False),
        pa.field("attempt", pa.int32(), False),
        pa.field("experiment", pa.string(), False),
        pa.field("payload", pa.string(), False),
        pa.field("load", pa.string(), False),
        pa.field("actor", pa.string(), False),
        pa.field("host", pa.string(), False),
        pa.field("phase", pa.string(), False),
        pa.field("planned_ns", pa.int64(), False, _INSTANT),
        pa.field("sent_ns", pa.int64(), True, _INSTANT),
        pa.field("first_byte_ns", pa.int64(), True, _INSTANT),
        pa.field("first_token_ns", pa.int64(), True, _INSTANT),
        pa.field("last_token_ns", pa.int64(), True, _INSTANT),
        pa.field("end_ns", pa.int64(), True, _INSTANT),
        pa.field("chunk_ns", pa.list_(pa.int64()), True, _INSTANT),
        pa.field("chunk_tokens", pa.list_(pa.int32()), True, {"unit": "tokens"}),
        pa.field("outcome", pa.string(), False),
        pa.field("http_status", pa.int32()),
        pa.field("error_code", pa.string()),
        pa.field("original_status", pa.int32()),
        pa.field("error_message", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field("variant", pa.string()),
        pa.field("connection_reused", pa.bool_()),
        pa.field("prompt_id", pa.string()),
        pa.field("prompt_tokens", pa.int32(), True, {"unit": "tokens"}),
        pa.field("completion_tokens", pa.int32(), True, {"unit": "tokens"}),
        pa.field("cached_tokens", pa.int32(), True, {"unit": "tokens"}),
        pa.field("max_tokens", pa.int32(), True, {"unit": "tokens"}),
        pa.field("prompt_tokens_source", pa.string()),
        pa.field("completion_tokens_source", pa.string()),
        pa.field("finish_reason", pa.string()),
        pa.field("echoed_prompt", pa.bool_()),
        pa.field("request_bytes", pa.int64(), False, {"unit": "bytes"}),
        pa.field("response_bytes", pa.int64(), False, {"unit": "bytes"}),
        pa.field("prompt_text", pa.string()),
        pa.field("completion_text", pa.string()),
    ],
    metadata={"raybench_schema": str(SCHEMA_VERSION)},
)
"""The requests table: one row per planned request."""


def requests_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table of the REQUESTS schema, in the order given."""
    if not rows:
        return REQUESTS.empty_table()
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays([_column(f.type, c) for f, c in zip(REQUESTS, columns, strict=True)], schema=REQUESTS)


def _column(of: pa.DataType, column: Sequence[Any]) -> pa.Array:
    """A column; lists of numbers go through one flat buffer, which is several times as fast."""
    if not pa.types.is_list(of):
        return pa.array(column, type=of)
    kind = of.value_type
    flat = array("q" if kind == pa.int64() else "i", chain.from_iterable(filter(None, column)))
    ends = pa.array([0, *accumulate(len(each) if each else 0 for each in column)], type=pa.int32())
    unknown = pa.array([each is None for each in column]) if None in column else None
    return pa.ListArray.from_arrays(ends, pa.array(flat, type=kind), type=of, mask=unknown)


def row_from_values(given: Sequence[Any]) -> Row:
    """The inverse of taking a Row's values in column order; a wrong number of them is a ValueError."""
    if len(given) != len(Row._fields):
        raise ValueError(f"a row has {len(Row._fields)} values, not {len(given)}")
    return Row(*given)
