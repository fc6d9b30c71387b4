"""A YAML file read strictly: what it says is what is meant, and every value knows the line it stands on.

Nothing is constructed but text, finite numbers, true, false, null, tuples and dicts with text keys. Refused, with
file and line: duplicate keys, anchors and aliases, tags, several documents, tabs, control and bidi characters,
nesting deeper than MAX_DEPTH, more than MAX_BYTES, and whatever YAML 1.1 and 1.2 read differently.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raybench.errors import InputError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20

Key = tuple[str | int, ...]
"""Where a value stands: mapping keys and sequence positions from the top."""

_PLAIN = re.compile(r"[\w/-]{1,60}")
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?=.*[.eE])((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
_SURPRISES = (
    (
        re.compile(r"(?i)yes|no|on|off|true|false"),
        "is a boolean to some readers only",
        "true or false, or quoted text",
    ),
    (re.compile(r"(?i)null"), "is null to some readers only", "null, or quoted text"),
    (re.compile(r"(?i)[-+]?\.(inf|nan)"), "is not a finite number", "a finite number"),
    (
        re.compile(r"[-+]?[0-9]+(:[0-9]+)+(\.[0-9]*)?"),
        "is base 60 to some readers",
        "a duration with a unit (90s, 5m, 1h)",
    ),
    (re.compile(r"[-+]?0[0-9][0-9_.]*"), "is octal to some readers", "a number with no leading zero, or quoted text"),
    (re.compile(r"(?i)[-+]?0[xob][0-9a-f_]+"), "is not a decimal number", "a decimal number, or quoted text"),
    (re.compile(r"[-+]?[0-9][0-9_.]*_[0-9_.]*"), "has underscores", "digits only, or quoted text"),
    (re.compile(r"[-+]?[0-9]+"), "has too many digits", "at most 18 digits, or quoted text"),
)


@dataclass(frozen=True)
class Document:
    """A file's one mapping, its text as written, and the line (from 1) of every key and item."""

    path: Path
    text: str
    value: Mapping[str, Any]
    lines: Mapping[Key, int]

    def line(self, key: Key) -> int:
        """The line of the key, or of the nearest thing that holds it."""
        while key not in self.lines:
            key = key[:-1]
        return self.lines[key]

    def where(self, key: Key) -> str:
        """`file:line` of the key, as compilers write it."""
        return f"{self.path}:{self.line(key)}"


def dotted(key: Key) -> str:
    """A key as people write it: `loads[0].concurrency`; odd or long names are quoted and cut."""
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{part}" if _PLAIN.fullmatch(part) else f".{part[:40]!r}"
        for part in key
    )
    return "".join(parts).removeprefix(".")


def read(path: Path) -> Document:
    """Reads the YAML file at `path`; InputError says what is wrong and where."""
    text = _text(path)
    lines: dict[Key, int] = {(): 1}
    try:
        value = _Reader(path, lines, _events(text)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = error.problem or error.context or "cannot be parsed"
        raise InputError(f"not YAML: {problem}", where=where, allowed="one YAML mapping") from None
    except yaml.YAMLError as error:
        raise InputError(f"not YAML: {str(error).splitlines()[0]}", where=f"{path}:1", allowed="text") from None
    if not isinstance(value, dict):
        found = "empty" if value is None else f"a {_noun(value)}"
        raise InputError(f"the file is {found}", where=f"{path}:1", allowed="a mapping with name, experiments, ...")
    return Document(path, text, value, lines)


def _text(path: Path) -> str:
    """The file's text, size, encoding and characters checked."""
    try:
        if not path.is_file():
            problem = "is a directory" if path.is_dir() else "no such file"
            raise InputError(problem, where=str(path), allowed="a YAML file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", where=repr(str(path)), allowed="a readable YAML file") from None
    if len(data) > MAX_BYTES:
        raise InputError("the file is too large", where=f"{path}:1", allowed=f"at most {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise InputError(problem, where=f"{path}:{line}", allowed="UTF-8 text") from None
    text = text.replace("\r\n", "\n")
    if (bad := _forbidden(text)) is not None:
        line = text.count("\n", 0, bad) + 1
        raise InputError(
            _character(text[bad]), where=f"{path}:{line}", allowed="printable text, indented with spaces"
        )
    return text


def _forbidden(text: str) -> int | None:
    """Where the first character stands that cannot be seen, or changes how its neighbours are seen; else None."""
    if text.replace("\n", "").isprintable():
        return None
    for position, char in enumerate(text):
        shown = char.isprintable() or char == "\n" or unicodedata.category(char) in ("Zs", "Cn", "Co")
        if not shown or char in "\ufffe\uffff":
            return position
    return None


def _character(char: str) -> str:
    name = {"\t": "TAB"}.get(char, unicodedata.name(char, "CONTROL CHARACTER"))
    return f"contains the character U+{ord(char):04X} {name}"


def _noun(value: object) -> str:
    return {dict: "mapping", tuple: "list", str: "text", bool: "boolean"}.get(type(value), "number")


def _events(text: str) -> Iterator[Any]:
    """The parser's events, one by one: nothing is built before it is checked."""
    loader = _PARSER(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


class _Reader:
    """Builds one value from events, noting lines; recursion is bounded by MAX_DEPTH."""

    def __init__(self, path: Path, lines: dict[Key, int], events: Iterator[Any]) -> None:
        self.path = path
        self.lines = lines
        self.events = events

    def document(self) -> Any:
        """The only document's value; None when there is none."""
        value: Any = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.wrong(event, (), "a second document begins", "one document to a file")
            elif isinstance(event, yaml.NodeEvent):
                value = self.value(event, ())
        return value

    def value(self, event: Any, key: Key) -> Any:
        """The value that begins with `event`."""
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self.wrong(event, key, "anchors and aliases are not read", "write the value out")
        if event.tag is not None:
            raise self.wrong(event, key, f"the tag {event.tag[:60]!r} is not read", "plain values without tags")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, key)
        if len(key) >= MAX_DEPTH:
            raise self.wrong(event, key[:3], "nested too deep", f"at most {MAX_DEPTH} levels")
        return self.mapping(key) if isinstance(event, yaml.MappingStartEvent) else self.sequence(key)

    def sequence(self, key: Key) -> tuple[Any, ...]:
        """The items up to the end of this sequence."""
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            place = (*key, len(items))
            self.lines[place] = event.start_mark.line + 1
            items.append(self.value(event, place))
        return tuple(items)

    def mapping(self, key: Key) -> dict[str, Any]:
        """The pairs up to the end of this mapping."""
        pairs: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name = self.value(event, key) if isinstance(event, yaml.ScalarEvent | yaml.AliasEvent) else None
            if not isinstance(name, str):
                raise self.wrong(event, key, "a key is not text", "text keys, quoted where they look like numbers")
            place = (*key, name)
            if name in pairs:
                raise self.wrong(event, place, f"is given twice, first on line {self.lines[place]}", "once")
            self.lines[place] = event.start_mark.line + 1
            pairs[name] = self.value(next(self.events), place)
        return pairs

    def scalar(self, event: Any, key: Key) -> str | int | float | bool | None:
        """Text if quoted; else a word, a number or text, and an error if readers of YAML would disagree."""
        text: str = event.value
        if (bad := _forbidden(text.replace("\t", " "))) is not None:
            raise self.wrong(event, key, _character(text[bad]), "printable text")
        if event.style in ("'", '"', "|", ">"):
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                raise self.wrong(event, key, f"{text[:40]} is not a finite number", "a finite number")
            return number
        for pattern, problem, allowed in _SURPRISES:
            if pattern.fullmatch(text):
                raise self.wrong(event, key, f"{text[:40]} {problem}", allowed)
        return text

    def wrong(self, event: Any, key: Key, problem: str, allowed: str) -> InputError:
        return InputError(problem, where=f"{self.path}:{event.start_mark.line + 1}", key=dotted(key), allowed=allowed)
