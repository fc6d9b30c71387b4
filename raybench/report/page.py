"""One run as one self-contained HTML file: no network, no scripts but the two it names by hash."""

from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from raybench.analysis import spoken
from raybench.analysis.decide import Decision
from raybench.analysis.reduce import Findings
from raybench.report import columns, palette, sections, text, vega
from raybench.report.figures import Figure, draw
from raybench.report.view import View, look


def page(findings: Findings, decision: Decision, manifest: Mapping[str, Any]) -> str:
    """The report of one run; the same inputs give the same bytes."""
    view = look(findings, decision, manifest)
    return render(view, draw(view))


def render(view: View, figures: Mapping[str, Figure]) -> str:
    """The page of a view and its charts, already drawn."""
    return filled(
        "report.html.j2",
        figures,
        **sections.head(view),
        **sections.answered(view),
        **sections.evidence(view),
        **sections.costs(view),
        **sections.method(view),
        contents=sections.contents(view, figures),
    )


def filled(template: str, figures: Mapping[str, Figure], **said: Any) -> str:
    """A page of ours: its template with style, scripts, policy and charts, and what it says."""
    environment = _environment()
    script, bundle = _source(environment, "report.js"), vega.bundle()
    hashes = f"{vega.sha256_source(bundle)} {vega.sha256_source(script)}"
    return environment.get_template(template).render(
        csp=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'",
        style=trusted(_source(environment, "report.css")),
        light=trusted(_variables(palette.LIGHT)),
        dark=trusted(_variables(palette.DARK)),
        font=trusted(palette.FONT),
        bundle=trusted(bundle),
        script=trusted(script),
        charts={
            name: {"spec": f.spec, "drawing": trusted(f.drawing), "left_out": f.left_out, "wide": f.wide}
            for name, f in figures.items()
        },
        **said,
    )


def trusted(ours: str) -> Markup:
    """Text of our own making, to stand in the page as it is."""
    return Markup(ours)  # noqa: S704


def _environment() -> jinja2.Environment:
    """Autoescape is on whatever the template's name; `select_autoescape` would leave `.j2` files bare."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("raybench.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "sort_keys": False}
    environment.globals |= {"span": text.span, "usd": spoken.usd, "seconds": spoken.seconds}
    environment.filters |= {
        "fixed": text.fixed,
        "times": spoken.times,
        "known": text.known,
        "usd": spoken.usd,
        "seconds": spoken.seconds,
        "milliseconds": lambda value: spoken.seconds(None if value is None else value * 1000),
        "percent": spoken.percent,
        "errors": columns.errors,
    }
    return environment


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())
