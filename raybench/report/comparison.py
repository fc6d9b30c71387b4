"""The comparison of two runs as a page and as Markdown."""

from typing import Any

from raybench import __version__
from raybench.analysis.change import POINTS, ZONE, Call
from raybench.analysis.compare import Comparison
from raybench.analysis.decide import plain
from raybench.report import called, compared, sentences, vega
from raybench.report.charts import compare as chart
from raybench.report.charts import style
from raybench.report.compared import GLYPHS, MOST_LISTED, NAMES, STATES
from raybench.report.figures import Figure
from raybench.report.markdown import document
from raybench.report.page import filled
from raybench.report.text import clean, count, markdown_text

_CARDS = {
    Call.WORSE: "the whole interval beyond the zone, on the bad side",
    Call.BETTER: "the whole interval beyond the zone, on the good side",
    Call.SAME: "the whole interval inside the zone",
    Call.UNSURE: "too few requests or repeats; the table says what would do",
}
MOST_DIFFERENCES = 40


def page(comparison: Comparison) -> str:
    """The comparison as one self-contained HTML file; the same inputs give the same bytes."""
    figures, cells = _figures(comparison), list(compared.left_out(comparison))
    shown = {
        "answer": "The answer",
        "differences": "Differences" if comparison.differences or comparison.remarks else "",
        "changes": "Cell by cell" if comparison.called() else "",
        "left": "Not compared" if cells else "",
        "method": "The two runs",
    }
    return filled(
        "compare.html.j2",
        figures,
        title=_title(comparison),
        contents=[(key, said) for key, said in shown.items() if said],
        meta=_meta(comparison),
        banners=called.banners(comparison),
        answer=[(kind, sentences.emphasized(said, {})) for kind, said in called.sentences(comparison)],
        calls=[_card(comparison, call) for call in Call],
        rules=called.rules(comparison),
        differences=_differences(comparison),
        differences_said=_differences_said(comparison),
        zone=round(ZONE * 100),
        points=round(POINTS * 100),
        heads=[NAMES[metric][1] for metric in compared.metrics(comparison)],
        lines=compared.lines(comparison),
        left_out=cells[:MOST_LISTED],
        left_said=f"{count(len(cells), 'cell')} {'is' if len(cells) == 1 else 'are'} left out of the comparison"
        f"{f', of which the first {MOST_LISTED} are listed' if len(cells) > MOST_LISTED else ''}.",
        about=compared.about(comparison),
        version=clean(__version__),
    )


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown, every word from outside escaped."""
    left = [(markdown_text(name), markdown_text(why)) for name, why in compared.left_out(comparison)]
    return document(
        "compare.md.j2",
        title=markdown_text(_title(comparison)),
        banners=[f"**{banner.head}** {markdown_text(banner.said)}" for banner in called.banners(comparison)],
        answer=[f"**{markdown_text(plain(said), 1000)}**" for _, said in called.sentences(comparison)],
        counts=[f"{len(comparison.called(call)):,}" for call in Call],
        rules=called.rules(comparison),
        differences=[
            [markdown_text(part) for part in (found.whose, found.what, found.base, found.candidate, so)]
            for found, so, _ in _differences(comparison)
        ],
        heads=[NAMES[metric][1] for metric in compared.metrics(comparison)],
        lines=[_markdown_line(line) for line in compared.lines(comparison)],
        left_out=left,
        about=[[markdown_text(part) for part in row] for row in compared.about(comparison)],
    )


def _markdown_line(line: compared.CellLine) -> list[str]:
    name = f"{line.name} ({line.played}{f'; {line.remark}' if line.remark else ''})"
    shown = [
        "–" if one is None else " ".join(part for part in (one.glyph, one.change, one.interval) if part)
        for one in line.shown
    ]
    return [markdown_text(name), *shown]


def _figures(comparison: Comparison) -> dict[str, Figure]:
    rows, metrics, cells, left = compared.drawn(comparison)
    if not rows:
        return {}
    calls = {str(call): look for call, look in compared.SHAPES.items()}
    drawing = chart.changes(rows, metrics, cells, calls)
    spec = vega.bounded("changes-chart", vega.compiled(style.spec("changes-chart", drawing)))
    said = f"{count(left, 'cell')} without a worse call left out; the table has them." if left else ""
    return {"changed": Figure(spec, vega.drawing(spec, "changed"), said)}


def _title(comparison: Comparison) -> str:
    name = clean(comparison.candidate.get("model") or comparison.candidate.get("name"))
    return f"{name}: what changed between two runs?"


def _meta(comparison: Comparison) -> list[str]:
    base, candidate = (clean(run.get("run_id")) for run in (comparison.base, comparison.candidate))
    return [f"base {base}", f"candidate {candidate}", count(len(comparison.pairs), "cell") + " in both"]


def _card(comparison: Comparison, call: Call) -> dict[str, Any]:
    kind = {"fail": "fail", "pass": "pass", "unsure": "warn"}.get(STATES[call], "mute")
    number = len(comparison.called(call))
    return {"kind": kind, "glyph": GLYPHS[call], "name": str(call), "number": number, "more": _CARDS[call]}


def _differences(comparison: Comparison) -> list[tuple[Any, str, str]]:
    """Each difference, what follows from it, and its colour."""
    found = [(each, "not comparable", "fail") for each in comparison.differences]
    found += [(each, "remarked", "") for each in comparison.remarks]
    return found[:MOST_DIFFERENCES]


def _differences_said(comparison: Comparison) -> str:
    number = len(comparison.differences) + len(comparison.remarks)
    more = f" The first {MOST_DIFFERENCES} of {number} are listed." if number > MOST_DIFFERENCES else ""
    return f"What the runs do not share, and what may therefore explain a change.{more}"
