"""The report's colours, once: page and charts name them as CSS variables, files that stand alone get literals."""

import re

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
SERIES = 8
STEPS = 7
SHARES = 6

_COLOURS = {
    "page": ("#f6f7f9", "#0f1318"),
    "card": ("#ffffff", "#161b22"),
    "ink": ("#1b1f24", "#e8ecf1"),
    "ink2": ("#57606a", "#a7b0bb"),
    "line": ("#dfe3e8", "#2a323c"),
    "grid": ("#e6e9ed", "#262d36"),
    "axis": ("#b6bdc6", "#47505b"),
    "mute": ("#818994", "#7c8692"),
    "ok": ("#00795c", "#46c99f"),
    "bad": ("#b3261e", "#ff8a80"),
    "warn": ("#8a5a00", "#f0b850"),
    "okbg": ("#e5f3ee", "#12312a"),
    "badbg": ("#fbeae8", "#3a1d1c"),
    "warnbg": ("#fbf3df", "#352a12"),
    "mutebg": ("#eef0f3", "#20262e"),
    "c1": ("#22409c", "#6a9cf7"),
    "c2": ("#b85c00", "#f5b461"),
    "c3": ("#0a8071", "#4fe0a8"),
    "c4": ("#bb2f8f", "#f07ab0"),
    "c5": ("#6b3fa0", "#b79cff"),
    "c6": ("#766800", "#d6cf5a"),
    "c7": ("#8c3b2e", "#ffab91"),
    "c8": ("#4a5b6b", "#b8c4d0"),
    "s1": ("#9ecae1", "#2d5c86"),
    "s2": ("#79b5d9", "#3a79ae"),
    "s3": ("#559fce", "#4488bf"),
    "s4": ("#3586c0", "#4f97d0"),
    "s5": ("#2171b5", "#78b4e2"),
    "s6": ("#08519c", "#a6cff0"),
    "s7": ("#08306b", "#d5e9fa"),
    "d1": ("#9cc9e8", "#2b6796"),
    "d2": ("#c3dff1", "#275578"),
    "d3": ("#e3f0f8", "#22435c"),
    "d4": ("#f4f2ee", "#2a2f36"),
    "d5": ("#fbe3cf", "#4f3a26"),
    "d6": ("#f7c59f", "#6f4a28"),
    "d7": ("#efa26b", "#845427"),
    "d8": ("#e07f3c", "#965c28"),
    "h1": ("#e3eef7", "#1b2c3c"),
    "h2": ("#b5d3ea", "#23486a"),
    "h3": ("#7fb2da", "#2f6897"),
    "h4": ("#4a8dc4", "#4a8dc4"),
    "h5": ("#1f65a3", "#7fb8e4"),
    "h6": ("#0a3d70", "#c4e0f5"),
}
"""Name -> in the light and in the dark. c: configurations, s: rising loads, h: rising shares, d: shares of a limit,
from well inside to far outside."""

LIGHT = {name: light for name, (light, _) in _COLOURS.items()}
DARK = {name: dark for name, (_, dark) in _COLOURS.items()}
_VARIABLE = re.compile(r"var\(--(\w+)\)")


def variable(name: str) -> str:
    """The colour `name` as CSS says it."""
    return f"var(--{name})"


def series(place: int) -> str:
    """The colour name of the configuration at `place` (from 0); those past the palette share the grey."""
    return f"c{place + 1}" if place < SERIES else "mute"


def with_fallbacks(svg: str) -> str:
    """Every variable with the light colour behind it, for viewers that drop the page's style sheet."""
    return _VARIABLE.sub(lambda m: f"var(--{m[1]},{LIGHT[m[1]]})" if m[1] in LIGHT else m[0], svg)
