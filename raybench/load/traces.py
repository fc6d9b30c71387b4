"""Recorded traces: when requests arrived and how many tokens went in and out.

Azure LLM 2023 is CSV (`TIMESTAMP,ContextTokens,GeneratedTokens`, instants to 100 ns); Mooncake is JSON lines
(`timestamp` in ms, `input_length`, `output_length`). Instants are read as integers and lose no digit.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from raybench.clock import NS_PER_S
from raybench.errors import InputError

MAX_LINE_BYTES = 1 << 20
AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
MOONCAKE_FIELDS = ("timestamp", "input_length", "output_length")

_AZURE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:\+00:00|Z)?,(\d{1,9}),(\d{1,9})", re.ASCII)
_MS = 1_000_000

Arrival = tuple[int, int, int]
"""An instant in nanoseconds since some epoch of the file, tokens in, tokens out."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Arrivals in order: nanoseconds since the trace's T0, tokens in and tokens out, three arrays of one length."""

    offsets_ns: npt.NDArray[np.int64]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets_ns)

    def part(self, from_ns: int, to_ns: int) -> "Trace":
        """What arrives in `[from_ns, to_ns)`, perhaps nothing; `from_ns` becomes T0."""
        low, high = np.searchsorted(self.offsets_ns, [from_ns, to_ns])
        here = slice(int(low), int(high))
        return Trace(self.offsets_ns[here] - from_ns, self.input_tokens[here], self.output_tokens[here])

    def faster(self, speed: Fraction) -> "Trace":
        """The same arrivals, `speed` times as fast, each rounded down to a nanosecond."""
        if speed == 1:
            return self
        up, down = speed.denominator, speed.numerator
        offsets = np.array([offset * up // down for offset in self.offsets_ns.tolist()], dtype=np.int64)
        return Trace(offsets, self.input_tokens, self.output_tokens)


def read_trace(path: Path) -> Trace:
    """The trace in `path`, Mooncake if its first line begins with a brace, else Azure; T0 is its first arrival.

    A line that is neither is an InputError with `file:line`. Arrivals of one instant keep the file's order.
    """
    lines = _lines(path)
    number, first = next(lines, (1, ""))
    if first.startswith("{"):
        arrivals = [_mooncake(first, f"{path}:{number}")]
        arrivals += [_mooncake(line, f"{path}:{number}") for number, line in lines]
    else:
        if first not in (AZURE_HEADER, ""):
            allowed = f"the header {AZURE_HEADER}, or JSON lines with {', '.join(MOONCAKE_FIELDS)}"
            raise InputError("not a trace that we know", where=f"{path}:{number}", allowed=allowed)
        arrivals = [_azure(line, f"{path}:{number}") for number, line in lines]
    if not arrivals:
        raise InputError("the trace is empty", where=str(path), allowed="at least one arrival")
    table = np.array(arrivals, dtype=np.int64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return Trace(table[:, 0] - table[0, 0], table[:, 1].copy(), table[:, 2].copy())


def _azure(line: str, where: str) -> Arrival:
    try:
        if (match := _AZURE.fullmatch(line)) is None:
            raise ValueError("not an arrival")
        seconds = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        allowed = "2023-11-16 18:17:03.9799600,4808,10 for example"
        raise InputError(f"{line[:60]!r} is not an arrival", where=where, allowed=allowed) from None
    instant_ns = int(seconds.timestamp()) * NS_PER_S + int((match[2] or "").ljust(9, "0"))
    return instant_ns, int(match[3]), int(match[4])


def _mooncake(line: str, where: str) -> Arrival:
    try:
        record = orjson.loads(line)
        milliseconds, tokens_in, tokens_out = (_whole(record[field]) for field in MOONCAKE_FIELDS)
    except (ValueError, KeyError, TypeError):
        fields = ", ".join(MOONCAKE_FIELDS)
        allowed = f"a JSON object with whole numbers in {fields}"
        raise InputError(f"{line[:60]!r} is not an arrival", where=where, allowed=allowed) from None
    return milliseconds * _MS, tokens_in, tokens_out


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 40:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered from 1, without their ends."""
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    allowed = f"at most {MAX_LINE_BYTES} bytes"
                    raise InputError("the line is too long", where=f"{path}:{number}", allowed=allowed)
                if text := line.decode("utf-8-sig" if number == 1 else "utf-8").strip():
                    yield number, text
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), allowed="a trace file") from None
    except UnicodeDecodeError:
        raise InputError("not UTF-8", where=f"{path}:{number}", allowed="a trace file in UTF-8") from None
