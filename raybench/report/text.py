"""How a report writes: labels from outside made harmless, numbers rounded for display, Markdown escaped."""

import math
import unicodedata
from collections.abc import Callable

from raybench.analysis.spoken import NO_NUMBER, seconds

LABEL_CHARS = 60
_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
_MARKDOWN = str.maketrans(
    {"\\": "\\\\", "|": "\\|", "`": "\\`", "*": "\\*", "[": "\\[", "]": "\\]", "<": "&lt;", ">": "&gt;"}
)
_MARKDOWN_CODE = str.maketrans({"|": "\\|", "`": "'", "<": "&lt;", ">": "&gt;"})


def clean(value: object, cap: int = LABEL_CHARS) -> str:
    """A label from outside: one line, no control, bidi or separator characters, at most `cap` characters.

    A line separator inside a Vega expression breaks its parser, and a bidi override would let a name reorder
    the sentence around it.
    """
    shown = "".join(" " if unicodedata.category(char) in _HIDDEN else char for char in str(value))
    line = " ".join(shown.split())
    return line if len(line) <= cap else line[: cap - 1] + "…"


def block(value: object) -> str:
    """Text from outside that keeps its lines: as `clean`, but line feeds stay."""
    lines = str(value).replace("\r\n", "\n").split("\n")
    return "\n".join(
        "".join(" " if unicodedata.category(char) in _HIDDEN and char != "\t" else char for char in line)
        for line in lines
    )


def markdown_text(value: object, cap: int = 500) -> str:
    """Text from outside, escaped for a Markdown paragraph or table cell."""
    return clean(value, cap).translate(_MARKDOWN)


def markdown_code(value: object) -> str:
    """Text from outside as a Markdown code span, safe in a table cell too."""
    return f"`{clean(value, 500).translate(_MARKDOWN_CODE)}`"


def known(value: float | None) -> bool:
    """Whether a number is there to be shown: neither missing nor infinite."""
    return value is not None and math.isfinite(value)


def fixed(value: float | None, places: int) -> str:
    """A number with exactly so many decimals and thousands set apart; a dash where there is none."""
    return f"{value:,.{places}f}" if value is not None and math.isfinite(value) else NO_NUMBER


def short(value: float | None, places: int) -> str:
    """A number as the seed's tables print it: rounded, without the zeros that only fill, `2.6` and `0.0`.

    What would round to nothing keeps three figures, `0.000412`.
    """
    if value is None or not math.isfinite(value):
        return NO_NUMBER
    if value and not round(value, places):
        return seconds(value)
    shown = f"{value:.{places}f}".rstrip("0")
    return f"{shown}0" if shown.endswith(".") else shown


def span(low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    """An interval in brackets, `≥` where it has no upper end; nothing where it is not known."""
    if low is None or not math.isfinite(low):
        return ""
    return f"(≥ {write(low)})" if high is None or not math.isfinite(high) else f"({write(low)}–{write(high)})"


def count(number: int, thing: str) -> str:
    """`1 trial`, `16 trials`, `1,204 requests`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
