"""Strict models: nothing unknown, nothing converted, and every complaint names its file, line and key."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from raybench.errors import InputError
from raybench.yamlfile import Document, Key, dotted

MAX_ITEMS = 1000

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
_WORDING = (
    (r"a valid (dictionary|mapping).*", "a mapping"),
    (r"a valid (tuple|list).*", "a list"),
    (r"a valid string", "text"),
    (r"a valid integer", "a whole number"),
    (r"a valid number", "a number"),
    (r"a valid boolean", "true or false"),
    (r"greater than or equal to ", "at least "),
    (r"less than or equal to ", "at most "),
    (r"have (at \w+ \d+) items? after validation.*", r"a list of \1"),
    (r"have (at \w+ \d+) character.*", r"\1 characters"),
)


class Model(BaseModel):
    """A frozen part of the config: exact types, finite numbers, and unknown keys refused by their nearest name."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, value: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in value if isinstance(value, dict) else ():
            if key not in known:
                raise wrong("unknown key", nearest(key, known), key)
        return value


def wrong(problem: str, allowed: str, *at: str | int) -> PydanticCustomError:
    """What a validator raises; `at` leads from the validated value to the culprit inside it."""
    return PydanticCustomError("wrong", "{problem}; {allowed}", {"problem": problem, "allowed": allowed, "at": at})


def nearest(word: object, known: Iterable[str]) -> str:
    """`did you mean …` where something is near, else what there is, if need be the first dozen."""
    names, text = sorted(known), str(word)[:100]
    near = difflib.get_close_matches(text, names, n=3)
    swapped = [name for name in near if sorted(name) == sorted(text)]
    if near:
        return f"did you mean {(swapped + near)[0]}?"
    return f"one of {', '.join(names if len(names) <= 12 else [*names[:12], '…'])}"


def shown(value: object) -> str:
    """A value of the file in few characters."""
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case dict():
            return "a mapping"
        case tuple():
            return "a list" if value else "an empty list"
        case _:
            text = repr(value[:80] if isinstance(value, str) else value)
            return text if len(text) <= 60 else f"{text[:56]}...'"


def explain(error: ValidationError, document: Document) -> InputError:
    """The topmost of pydantic's complaints, with the line of the key it is about."""
    details = [each for each in error.errors(include_url=False) if each["type"] != "default_factory_not_called"]
    complaints = [(_place(detail, document.lines), *_said(detail)) for detail in details]
    key, problem, allowed = min(complaints, key=lambda complaint: document.line(complaint[0]))
    return InputError(problem, where=document.where(key), key=dotted(key), allowed=allowed)


def _place(detail: ErrorDetails, lines: Mapping[Key, int]) -> Key:
    """Pydantic's location without what is not in the file, such as the names of a union's members."""
    key: Key = ()
    for part in (*detail["loc"], *detail.get("ctx", {}).get("at", ())):
        key = (*key, part) if (*key, part) in lines else key
    if detail["type"] == "missing":
        return (*key, detail["loc"][-1])
    return (*key, "kind") if detail["type"] in ("union_tag_invalid", "union_tag_not_found") else key


def _said(detail: ErrorDetails) -> tuple[str, str]:
    """(problem, allowed) of one complaint."""
    context: Mapping[str, Any] = detail.get("ctx", {})
    refused = f"{shown(detail['input'])} is not allowed"
    match detail["type"]:
        case "wrong":
            return context["problem"], context["allowed"]
        case "missing" | "union_tag_not_found":
            return "is missing", "it is required"
        case "union_tag_invalid":
            expected = re.findall(r"'(.*?)'", context["expected_tags"])
            return f"{shown(context['tag'])} is not a kind of load", nearest(context["tag"], expected)
        case "literal_error":
            return refused, nearest(detail["input"], re.findall(r"'(.*?)'", context["expected"]))
    allowed = re.sub(r"^(Input|Tuple|String|Dictionary) should (be )?", "", detail["msg"])
    for pattern, words in _WORDING:
        allowed = re.sub(pattern, words, allowed)
    return refused, allowed


def seconds(value: Any, *at: str) -> float:
    """Seconds of text like 500ms; anything else is wrong, `at` that key of the validated value."""
    if not isinstance(value, str) or not (parts := _DURATION.fullmatch(value)):
        raise wrong(f"{shown(value)} is not a duration", "text with a unit: 500ms, 60s, 5m or 1h", *at)
    return float(parts[1]) * _UNIT_S[parts[2]]


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise wrong(
            f"{shown(value)} is not a name", "1 to 80 of A-Z a-z 0-9 . _ + -, beginning with a letter or digit"
        )
    return value


def _some(value: Any) -> Any:
    if value == ():
        raise wrong("an empty list is not allowed", "at least one")
    if isinstance(value, tuple) and len(value) > MAX_ITEMS:
        raise wrong(f"a list of {len(value)} is not allowed", f"at most {MAX_ITEMS}")
    return value


def _one_or_more(value: Any) -> Any:
    return _some(value) if isinstance(value, tuple) else (value,)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen = set()
    for index, value in enumerate(values):
        if value in seen:
            raise wrong(f"{shown(value)} is given twice", "each value once", index)
        seen.add(value)
    return values


def _slice(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] >= value[1]:
        raise wrong("an empty slice", "[from, to) with from < to")
    return value


def _file(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        raise wrong(f"{shown(value)} is not a path", "the path of a file")
    folder = (info.context or {}).get("folder", Path())
    path = Path(folder, value).absolute()
    try:
        found = path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise wrong(f"no such file: {shown(value)}", f"a file, relative to {folder}")
    return path


Seconds = Annotated[float, BeforeValidator(lambda value: seconds(value))]
"""Seconds, written as text with a unit."""

Slice = Annotated[tuple[Seconds, Seconds], AfterValidator(_slice)]
"""The part [from, to) of a trace."""

Name = Annotated[str, AfterValidator(_name)]
"""A name that may become a folder's."""

File = Annotated[Path, BeforeValidator(_file)]
"""A file that exists, found from the config file's folder (the validation context's `folder`)."""

Some = BeforeValidator(_some)
"""Refuses an empty list, and an endless one."""

OneOrMore = BeforeValidator(_one_or_more)
"""Lets one value stand for a list of it."""

Distinct = AfterValidator(_distinct)
"""Refuses a list that says something twice."""
