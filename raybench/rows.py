"""The words both wings share: what is sent (Request), what the wire said (Exchange), and the Row of it.

A Row is one planned request. Its instants are integer nanoseconds since the trial's T0 on the sending
host's monotonic clock; nothing here subtracts two of them (`analysis/metrics.py` does).
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from itertools import accumulate, chain
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, get_args, get_type_hints

import pyarrow as pa

SCHEMA_VERSION = 1
ERROR_MESSAGE_CHARS = 500


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

    def give_up(self) -> None:
        """Ends every request in flight now: its `send` returns what has come so far."""


_INSTANT = "ns since the trial's T0"

Text = Annotated[str, pa.string()]
Bool = Annotated[bool, pa.bool_()]
Int = Annotated[int, pa.int32()]
Long = Annotated[int, pa.int64()]
Tokens = Annotated[int, pa.int32(), "tokens"]
TokenCounts = Annotated[Sequence[int], pa.list_(pa.int32()), "tokens"]
Bytes = Annotated[int, pa.int64(), "bytes"]
Instant = Annotated[int, pa.int64(), _INSTANT]
Instants = Annotated[Sequence[int], pa.list_(pa.int64()), _INSTANT]


class Row(NamedTuple):
    """One planned request; these are the columns of the requests table, which are public (README, run directory)."""

    trial_id: Text
    repeat: Int
    seq: Long
    attempt: Int
    experiment: Text
    payload: Text
    load: Text
    actor: Text
    host: Text
    phase: Text
    planned_ns: Instant
    sent_ns: Instant | None
    first_byte_ns: Instant | None
    first_token_ns: Instant | None
    last_token_ns: Instant | None
    end_ns: Instant | None
    chunk_ns: Instants
    chunk_tokens: TokenCounts | None
    outcome: Text
    http_status: Int | None
    error_code: Text | None
    original_status: Int | None
    error_message: Text | None
    request_id: Text | None
    variant: Text | None
    connection_reused: Bool | None
    prompt_id: Text | None
    prompt_tokens: Tokens | None
    completion_tokens: Tokens | None
    cached_tokens: Tokens | None
    max_tokens: Tokens | None
    prompt_tokens_source: Text | None
    completion_tokens_source: Text | None
    finish_reason: Text | None
    echoed_prompt: Bool | None
    request_bytes: Bytes
    response_bytes: Bytes
    prompt_text: Text | None
    completion_text: Text | None


def _field(name: str, hint: Any) -> pa.Field:
    """The column of a row's field; it may be null where the field may be None, and where it is a list."""
    optional = type(None) in get_args(hint)
    kind, *unit = (get_args(hint)[0] if optional else hint).__metadata__
    return pa.field(name, kind, optional or pa.types.is_list(kind), {"unit": unit[0]} if unit else None)


REQUESTS = pa.schema(
    [_field(name, hint) for name, hint in get_type_hints(Row, include_extras=True).items()],
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
