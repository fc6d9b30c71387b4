"""What a reply says, gathered as it is read: lines into records, records into text, counts and instants."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raybench.counting import estimated_tokens

RECORD_BYTES = 4 * 1024 * 1024
"""The longest record of a stream taken."""

_MOST = 2**31 - 1
_WORD_CHARS = 100
_SSE_NOISE = (b":", b"event:", b"id:", b"retry:")


class RecordError(Exception):
    """A record or body that is no JSON, too long, or not of its dialect."""


class Transcript:
    """What one reply has said so far. A dialect adds to it; nobody else does."""

    __slots__ = (
        "_early_tokens",
        "_hidden",
        "_text",
        "cached_tokens",
        "chunk_ns",
        "chunk_tokens",
        "completion_tokens",
        "ended",
        "error",
        "finish_reason",
        "prompt_tokens",
        "records",
    )

    def __init__(self) -> None:
        self._text: list[str] = []
        self._hidden: list[str] = []
        self._early_tokens = 0
        self.records = 0
        self.chunk_ns: list[int] = []
        self.chunk_tokens: list[int] | None = []
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.finish_reason: str | None = None
        self.ended = False
        self.error: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        """The completion: content, without reasoning and special tokens."""
        return "".join(self._text)

    @property
    def whole_text(self) -> str:
        """All that was generated and shown, reasoning first."""
        return "".join((*self._hidden, *self._text))

    @property
    def estimated_tokens(self) -> int:
        """The completion's tokens, reasoning included, if nobody says how many they are."""
        words = len(self.text.split()) + len("".join(self._hidden).split())
        return estimated_tokens(words)

    def chunk(self, stamp_ns: int, text: str, tokens: int | None, hidden: str = "") -> None:
        """Adds tokens that arrived at `stamp_ns`; those before the first visible one are counted with it."""
        if text:
            self._text.append(text)
        elif hidden:
            self._hidden.append(hidden)
        elif not self.chunk_ns:
            self._early_tokens += tokens or 0
            return
        self.chunk_ns.append(stamp_ns)
        if tokens is None or self.chunk_tokens is None:
            self.chunk_tokens = None
        else:
            self.chunk_tokens.append(tokens + self._early_tokens)
            self._early_tokens = 0

    def chunks(self, stamps_ns: Sequence[int], texts: Sequence[str], tokens: int | None) -> None:
        """Adds a chunk of `tokens` tokens for each text, as `chunk` does one by one."""
        first = 0
        while not self.chunk_ns and first < len(texts):
            self.chunk(stamps_ns[first], texts[first], tokens)
            first += 1
        added = len(texts) - first
        if not added:
            return
        self._text += texts[first:]
        self.chunk_ns += stamps_ns[first:]
        if tokens is None or self.chunk_tokens is None:
            self.chunk_tokens = None
        else:
            self.chunk_tokens += [tokens] * added

    def whole(self, text: str, hidden: str = "") -> None:
        """Adds the text of a reply that came whole: it has no chunks."""
        self._text.append(text)
        self._hidden.append(hidden)

    def details(self, details: Mapping[str, Any]) -> None:
        """Takes TGI's and LMI's `details`: the server's own count."""
        self.completion_tokens = count(details.get("generated_tokens"))
        self.prompt_tokens = count(details.get("input_length", details.get("prompt_tokens")))
        self.finish_reason = word(details.get("finish_reason"))

    def usage(self, usage: Mapping[str, Any]) -> None:
        """Takes OpenAI's `usage`: the server's own count."""
        self.completion_tokens = count(usage.get("completion_tokens"))
        self.prompt_tokens = count(usage.get("prompt_tokens"))
        if cached := usage.get("prompt_tokens_details"):
            self.cached_tokens = count(cached.get("cached_tokens"))


class Arrivals:
    """A byte stream, and when its bytes arrived: the first `edges[i]` of them were there at `stamps[i]`."""

    __slots__ = ("_at", "_edges", "_stamps", "data")

    def __init__(self, data: bytes, stamps: Sequence[int], edges: Sequence[int]) -> None:
        self.data = data
        self._stamps = stamps
        self._edges = edges
        self._at = 0

    def stamps(self, ends: Sequence[int]) -> list[int]:
        """When the first `end` bytes were there, for each of `ends`; ask in ascending order."""
        at, edges, stamps = self._at, self._edges, self._stamps
        found = []
        for end in ends:
            while edges[at] < end:
                at += 1
            found.append(stamps[at])
        self._at = at
        return found

    def ends_a_line(self, end: int) -> bool:
        """Whether a newline follows the first `end` bytes: what ends there is no record cut short."""
        return self.data.find(b"\n", end) >= 0


def records(data: bytes, most: int) -> Iterator[tuple[list[int], list[bytes]]]:
    """The records of a stream, one a line, at most `most` at a time: the offset after each, and each.

    `data:` is taken off; other fields of server-sent events are left out. Raises RecordError for a record too long.
    """
    at, may_be_too_long = 0, len(data) > RECORD_BYTES
    ends, found = list[int](), list[bytes]()
    for line in data.split(b"\n"):
        if line:
            record = line.rstrip()
            end = at + len(record)
            if may_be_too_long and len(record) > RECORD_BYTES:
                yield ends, found
                raise RecordError(f"a record of more than {RECORD_BYTES} bytes")
            if record[:5] == b"data:":
                record = record[5:]
            elif record.startswith(_SSE_NOISE):
                record = b""
            if record:
                ends.append(end)
                found.append(record)
                if len(found) == most:
                    yield ends, found
                    ends, found = [], []
            at += len(line)
        at += 1
    if found:
        yield ends, found


def count(value: Any) -> int | None:
    """A number of tokens, None where it is none."""
    return value if type(value) is int and 0 <= value <= _MOST else None


def word(value: Any) -> str | None:
    """A short text, None where it is none."""
    return value[:_WORD_CHARS] if isinstance(value, str) else None
