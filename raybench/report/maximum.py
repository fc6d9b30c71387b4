"""Maximum load: the rate that each search certified, and the probes it took to find it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raybench.analysis.spoken import percent, plain
from raybench.report.text import clean, fixed, markdown_text
from raybench.report.view import View

SENTENCE_CHARS = 600
RULE = (
    "Short probes only say where to look next: they end as soon as it is plain whether a rate is too high. A rate is "
    "certified by a trial of its own, in which the share of requests over the limit, and the 95 % bound above that "
    "share over ten blocks of time, stay within 1 %. Failed requests count as over it. Of the probes only that trial "
    "takes part in the comparison; all of them are in trials.parquet."
)


@dataclass(frozen=True, slots=True)
class ProbeLine:
    """One probe: what was offered, how much of it was late, and what that means."""

    step: str
    rate: str
    requests: int
    late: str
    bound: str
    seconds: float
    state: str
    glyph: str
    said: str


@dataclass(frozen=True, slots=True)
class SearchCard:
    """One search: what came of it in a sentence; kind is pass, none, or unsure where it was interrupted."""

    kind: str
    sentence: str
    notes: list[str]
    lines: list[ProbeLine]


def searches(view: View) -> list[SearchCard]:
    """The searches of a run, in the order of its plan."""
    return [_search(each) for each in view.manifest.get("searches", ())]


def in_markdown(view: View) -> list[tuple[str, list[list[str]]]]:
    """The same for Markdown: each sentence, and the cells of its table."""
    return [
        (
            markdown_text(" ".join((each.sentence, *each.notes)), SENTENCE_CHARS),
            [
                [line.step, line.rate, f"{line.requests:,}", line.late, line.bound, fixed(line.seconds, 1), line.said]
                for line in each.lines
            ],
        )
        for each in searches(view)
    ]


def _search(found: Mapping[str, Any]) -> SearchCard:
    verdict = found["verdict"]
    kind = "unsure" if verdict is None else "none" if verdict["rate"] is None else "pass"
    notes = []
    if verdict is not None and verdict["monotone"] is False:
        notes.append("A lower rate failed after a higher one had passed: the endpoint's capacity varies.")
    sentence = clean(found["sentence"], SENTENCE_CHARS)
    return SearchCard(kind, sentence, notes, [_line(probe, _refuted(probe, verdict)) for probe in found["probes"]])


def _refuted(probe: Mapping[str, Any], verdict: Mapping[str, Any] | None) -> bool:
    """Whether a probe certified a rate that the verdict, if there is one yet, does not name."""
    certified = probe["step"] == "certify" and probe["passed"]
    return bool(certified and verdict is not None and probe["rate"] != verdict["rate"])


def _line(probe: Mapping[str, Any], refuted: bool) -> ProbeLine:
    requests, late = probe["requests"], probe["late"]
    state, glyph, said = ("fail", "✕", "certified, then refuted") if refuted else _meaning(probe)
    return ProbeLine(
        step=clean(probe["step"]),
        rate=f"{plain(probe['rate'])}/s" if probe["rate"] else "one at a time",
        requests=requests,
        late=f"{late:,} ({percent(late / requests)})" if requests else "–",
        bound=percent(probe["bound"]) if probe["bound"] is not None else "–",
        seconds=probe["paid_s"],
        state=state,
        glyph=glyph,
        said=said,
    )


def _meaning(probe: Mapping[str, Any]) -> tuple[str, str, str]:
    if probe["fault"]:
        return "fail", "✕", f"not to be trusted: {clean(probe['fault'])}"
    if not probe["passed"]:
        short = "not certified" if probe["bound"] is not None else "not certified: plain before its end"
        return "fail", "✕", short if probe["step"] == "certify" else "failed"
    if probe["step"] == "certify":
        return "pass", "✓", "certified"
    return "pass", "✓", "passed"
