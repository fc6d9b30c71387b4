"""Templates: a text with named fields, `{input}`; a literal brace is doubled, as in `{{`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raybench.errors import InputError

MAX_BYTES = 1 << 20

_MARK = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<field>[^{}]*)\}|[{}]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Template:
    """Literal texts and the fields between them: `literals[0] fields[0] literals[1] … literals[-1]`."""

    name: str
    literals: tuple[str, ...]
    fields: tuple[str, ...]

    def fill(self, record: Mapping[str, Any], where: str) -> str:
        """The text with the record's values in their places; `where` is the record's `file:line`, for errors."""
        parts = [self.literals[0]]
        for field, literal in zip(self.fields, self.literals[1:], strict=True):
            parts += (self._value(record, field, where), literal)
        return "".join(parts)

    def _value(self, record: Mapping[str, Any], field: str, where: str) -> str:
        value = record.get(field)
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        problem = "is not text" if field in record else "is missing"
        names = ", ".join(list(record)[:20]) or "no field"
        allowed = f"a field of the record ({names}) that holds text or a number"
        raise InputError(f"the field {field!r} of template {self.name} {problem}", where=where, allowed=allowed)


def parse(text: str, name: str) -> Template:
    """The template that `text` spells; only plain names are fields: no attributes, indices, formats or numbers."""
    literals: list[str] = [""]
    fields: list[str] = []
    at = 0
    for mark in _MARK.finditer(text):
        literals[-1] += text[at : mark.start()]
        at = mark.end()
        if mark["brace"]:
            literals[-1] += mark["brace"][0]
        elif mark["field"] is not None and _NAME.fullmatch(mark["field"]):
            fields.append(mark["field"])
            literals.append("")
        else:
            where = f"{name}:{text.count(chr(10), 0, mark.start()) + 1}"
            problem = f"{mark[0][:40]!r} is not a field"
            raise InputError(problem, where=where, allowed="{name}, or {{ and }} for the braces themselves")
    literals[-1] += text[at:]
    if not fields:
        raise InputError("names no field: every prompt would be the same", where=name, allowed="{input}, for example")
    return Template(name, tuple(literals), tuple(fields))


def read_template(path: Path) -> Template:
    """The template in the file at `path`, one final newline left out; InputError if there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), allowed="a template file") from None
    except UnicodeDecodeError:
        raise InputError("not UTF-8", where=str(path), allowed="a template file in UTF-8") from None
    if len(data) > MAX_BYTES:
        raise InputError("the template is too large", where=str(path), allowed=f"at most {MAX_BYTES} bytes")
    return parse(text.replace("\r\n", "\n").removesuffix("\n"), str(path))
