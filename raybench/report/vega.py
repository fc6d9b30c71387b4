"""Vega without a browser: specs compiled and bounded, drawn as static SVG, and the script that makes them live."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from typing import Any

import vl_convert

from raybench.report import palette

VEGA_LITE = "6.4"
MAX_ROWS = 5_000
MAX_BYTES = 400_000
ROOM = 24
"""Pixels left free at a drawing's right: the reader's font may be wider than the one it was measured with."""

Spec = dict[str, Any]

_TAG = re.compile(r"<[^<>]*>")
_LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")
_LABELS = re.compile(r' (?:aria-label|aria-roledescription|aria-hidden|role|class)="[^"]*"')
_UNSEEN = re.compile(r'<(?:path|text|rect|line)[^<>]* (?:opacity="0"|display="none")[^<>]*/>')
_EMPTY = re.compile(r"<g[^<>]*></g>|<g[^<>]*/>")
_DEFAULTS = re.compile(r' (?:opacity="1"|stroke-width="1"|pointer-events="none")')
_SIZE = re.compile(r'width="(\d+)" (height="\d+" viewBox=")0 0 (\d+) ')
_REFERENCE = re.compile(r"(id=\"|url\(#|href=\"#)(\w+)")


def bounded(name: str, spec: Spec) -> Spec:
    """The spec itself; a ValueError where it holds more data than a page should carry."""
    rows = sum(len(values) for values in spec.get("datasets", {}).values())
    size = len(json.dumps(spec, allow_nan=False))
    if rows > MAX_ROWS or size > MAX_BYTES:
        raise ValueError(f"chart {name} holds {rows:,} rows and {size:,} bytes, over {MAX_ROWS:,} or {MAX_BYTES:,}")
    return spec


def compiled(spec: Mapping[str, Any]) -> Spec:
    """Vega-Lite to Vega here, so that the browser need not carry the work or the compiler's warnings."""
    vega: Spec = vl_convert.vegalite_to_vega(dict(spec), vl_version=VEGA_LITE)
    vega.pop("$schema", None)
    return vega


def drawing(vega: Spec, name: str) -> str:
    """A static SVG of the chart: ids that start with `name`, colours that follow the page, nothing that is not seen.

    It goes by its description; what each mark says is in the table beside it, and in the live chart.
    """
    svg: str = vl_convert.vega_to_svg(vega)
    for what in (_LABELS, _UNSEEN, _DEFAULTS):
        svg = what.sub("", svg)
    while _EMPTY.search(svg):
        svg = _EMPTY.sub("", svg)
    svg = _TAG.sub(lambda tag: _LONG_NUMBER.sub(r"\1", tag[0]), svg)
    svg = _SIZE.sub(lambda size: f'width="{int(size[1]) + ROOM}" {size[2]}0 0 {int(size[3]) + ROOM} ', svg, count=1)
    said = escape(str(vega.get("description", name)), quote=True)
    font = f' font-family="{palette.FONT}"'
    opened, _, rest = svg.replace(font, "").partition("<svg ")
    svg = f'{opened}<svg role="img" aria-label="{said}"{font} {rest}'
    return palette.with_fallbacks(_REFERENCE.sub(lambda ref: f"{ref[1]}{name}-{ref[2]}", svg))


def standalone(svg: str) -> str:
    """The drawing as a file of its own: literal light colours on a white ground."""
    opened, _, rest = re.sub(r"var\(--\w+,(#\w+)\)", r"\1", svg).partition(">")
    return f'{opened}><rect width="100%" height="100%" fill="{palette.LIGHT["card"]}"/>{rest}\n'


def picture(svg: str) -> bytes:
    """A drawing that stands alone as PNG, at twice its size."""
    drawn: bytes = vl_convert.svg_to_png(svg, scale=2)
    return drawn


@cache
def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script without dependencies; about a second the first time."""
    script: str = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg] # no snippet
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("the Vega bundle cannot stand inside a script element")
    return script


def sha256_source(script: str) -> str:
    """The script's hash as a Content-Security-Policy source."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
