"""Prompts from JSON lines: LongBench files and plain ones, read line by line and never held whole."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from raybench.errors import InputError
from raybench.payloads.templates import Template, parse

MAX_LINE_BYTES = 64 << 20

PROMPT_FIELDS = ("prompt", "text", "inputs")
"""Where a plain JSONL record may hold its prompt, first found first."""

_LONGBENCH = parse("{context}\n\n{input}", "of LongBench")


@dataclass(frozen=True, slots=True)
class LongBench:
    """LongBench JSONL files: `input`, `context`, `language`; without a template, the context and then the input."""

    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Jsonl:
    """JSONL files with a `prompt` (or `text`, or `inputs`) each line, or the fields that a template names."""

    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A text that may become a prompt, and its language where the data says so."""

    text: str
    language: str | None


def texts(dataset: LongBench | Jsonl, template: Template | None, base_dir: Path) -> Iterator[Text]:
    """The dataset's texts in the order of its files; relative paths start at `base_dir`.

    A line that is not a JSON object, or lacks what the template names, is an InputError with `file:line`.
    """
    if template is None and isinstance(dataset, LongBench):
        template = _LONGBENCH
    for file in dataset.files:
        for where, record in records(base_dir / file):
            language = record.get("language")
            text = _prompt(record, where) if template is None else template.fill(record, where)
            yield Text(text, language if isinstance(language, str) else None)


def records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The `file:line` and the object of every line of a JSONL file that is not blank."""
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"not JSON: {error.msg}", where=where, allowed="one JSON object a line") from None
        if not isinstance(record, dict):
            raise InputError("not a JSON object", where=where, allowed="one JSON object a line")
        yield where, record


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    where = f"{path}:{number}"
                    raise InputError("the line is too long", where=where, allowed=f"at most {MAX_LINE_BYTES} bytes")
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line := line.strip():
                    yield number, line
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), allowed="a JSONL file") from None


def _prompt(record: Mapping[str, Any], where: str) -> str:
    for field in PROMPT_FIELDS:
        if isinstance(value := record.get(field), str):
            return value
    raise InputError("no prompt", where=where, allowed=f"text in a field {', '.join(PROMPT_FIELDS)}, or a template")
