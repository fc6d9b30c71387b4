"""The checks that a reader would make before believing a number, each with its evidence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raybench.analysis import stats
from raybench.analysis.columns import Valid
from raybench.analysis.plausible import LITTLE, doubts, little
from raybench.analysis.spoken import listed, percent
from raybench.analysis.validity import BUSY, LATE, LATE_S
from raybench.counting import Source
from raybench.report.cells import Cell
from raybench.report.text import clean, count, fixed
from raybench.report.view import View
from raybench.states import TrialState

_DOUBTS = {
    "over_ceiling": "No more requests than latency allows",
    "equal_percentiles": "Percentiles are of requests",
    "echoed": "Completions are not prompts",
    "price_steps": "Throughput is not rounded before it is priced",
}
_GLYPHS = {"pass": "✓", "warn": "!", "fail": "✕", "missing": "–"}


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its state is pass, warn, fail or missing (nothing to check)."""

    name: str
    state: str
    found: str
    evidence: str

    @property
    def glyph(self) -> str:
        """The state as a sign."""
        return _GLYPHS[self.state]


def checks(view: View) -> list[Check]:
    """Every check that this run's data allows, in the order a reader would ask."""
    found = [check for make in _CHECKS if (check := make(view)) is not None]
    place = next((n for n, check in enumerate(found) if "Little" in check.name), len(found) - 1) + 1
    return found[:place] + _doubts(view) + found[place:]


def _validity(view: View) -> Check | None:
    cells = view.cells
    if not cells:
        return None
    invalid = [cell for cell in cells if not cell.valid]
    doubtful = [cell for cell in cells if cell.row["valid"] == Valid.INCONCLUSIVE]
    parts = [f"{len(cells) - len(invalid) - len(doubtful)} of {view.counted(len(cells))} valid"]
    parts += [f"{len(doubtful)} inconclusive"] if doubtful else []
    parts += [f"{len(invalid)} INVALID"] if invalid else []
    tally: dict[str, int] = {}
    for cell in [*invalid, *doubtful]:
        for code in cell.row["reasons"] or ():
            tally[clean(code)] = tally.get(clean(code), 0) + 1
    reasons = [f"{code} ({number})" for code, number in sorted(tally.items(), key=lambda kv: (-kv[1], kv[0]))]
    evidence = f"Noticed in those: {', '.join(reasons)}." if reasons else "Nothing was found against any trial."
    return Check("Trials hold up", "fail" if invalid else "warn" if doubtful else "pass", ", ".join(parts), evidence)


def _finished(view: View) -> Check | None:
    if not view.cells:
        return None
    cut = [cell for cell in view.cells if cell.row["state"] != TrialState.DONE]
    found = f"{len(view.cells) - len(cut)} of {view.counted(len(view.cells))} ran to the end"
    evidence = (
        "Unfinished trials are shown but cannot win." if cut else f"The run's state is {view.manifest['state']}."
    )
    return Check("Trials ran to their end", "warn" if cut else "pass", found, evidence)


def _accounted(view: View) -> Check | None:
    if not view.cells:
        return None
    total = {name: sum(cell.row[name] or 0 for cell in view.cells) for name in ("not_sent", "lost", "missing_rows")}
    gone = sum(total.values())
    found = "every planned request has its row" if not total["missing_rows"] else f"{total['missing_rows']:,} missing"
    found += f"; {total['not_sent']:,} not sent" if total["not_sent"] else ""
    evidence = f"{total['not_sent']:,} not sent, {total['lost']:,} lost; both count as failures."
    return Check("Every planned request is accounted for", "warn" if gone else "pass", found, evidence)


def _little(view: View) -> Check | None:
    cells = [cell for cell in view.cells if little(cell.row) is not None]
    if not cells:
        return None
    ratios = [little(cell.row) or 0.0 for cell in cells]
    off = [cell for cell, ratio in zip(cells, ratios, strict=True) if not LITTLE[0] <= ratio <= LITTLE[1]]
    evidence = "Throughput × mean latency ÷ concurrency is 1 when every slot is always busy; " + (
        f"below {LITTLE[0]} the load was lighter than it says, above {LITTLE[1]} it cannot be: {_named(off)}."
        if off
        else "no trial is far from it."
    )
    found = f"ratio {fixed(min(ratios), 3)} to {fixed(max(ratios), 3)}"
    found += f"; {len(off)} of {len(cells)} outside" if off else ""
    return Check("Throughput, latency and load agree (Little's law)", "warn" if off else "pass", found, evidence)


def _doubts(view: View) -> list[Check]:
    """What does not add up, by rule, from the trials table alone; only what is found is said."""
    rows = [cell.row for cell in view.cells]
    cells = {cell.row["trial_id"]: cell for cell in view.cells}
    return [
        Check(
            _DOUBTS[doubt.code],
            "warn",
            count(len(doubt.trial_ids), "trial"),
            f"{doubt.text} In {_named([cells[name] for name in doubt.trial_ids])}.",
        )
        for doubt in doubts(rows, view.manifest["experiments"])
        if doubt.code in _DOUBTS
    ]


def _lateness(view: View) -> Check | None:
    cells = [cell for cell in view.cells if cell.row["lateness_p99"] is not None]
    if not cells:
        return None
    worst = max(cells, key=lambda cell: cell.row["lateness_p99"])
    shares = [cell.row["cpu_share"] for cell in view.cells if cell.row["cpu_share"] is not None]
    late = [cell for cell in cells if not set(LATE).isdisjoint(cell.row["reasons"])]
    busy = bool(shares) and max(shares) > BUSY
    evidence = (
        "Worst p99 of sent − planned: " + _named([worst]) + ". Latency counts from planned, so delay is not hidden"
    )
    evidence += f"; the busiest client process used {percent(max(shares))} of a core." if shares else "."
    found = f"worst p99 {fixed(worst.row['lateness_p99'] * 1000, 1)} ms"
    return Check("The load generator kept up", "warn" if late or busy else "pass", found, evidence)


def _samples(view: View) -> Check | None:
    if not view.cells:
        return None
    known = {p: sum(cell.row[f"latency_{p}_low"] is not None for cell in view.cells) for p in ("p50", "p95", "p99")}
    floors = {p: stats.interval_floor(q) for p, q in (("p95", 0.95), ("p99", 0.99))}
    found = ", ".join(f"{p} in {number} of {len(view.cells)}" for p, number in known.items())
    evidence = (
        f"Counted where it has a 95 % interval. Below {floors['p95']} requests there is no p95, below "
        f"{floors['p99']} no p99; where requests may queue an interval takes {stats.QUEUED_FLOOR} independent ones."
    )
    return Check("Percentiles are bounded", _all(known["p95"], len(view.cells)), found, evidence)


def _steady(view: View) -> Check | None:
    told = [cell for cell in view.cells if cell.row["steady"] is not None]
    if not told:
        return Check(
            "Steady inside the window", "missing", "too few requests to tell", "No trial was long enough to test."
        )
    off = [cell for cell in told if not cell.row["steady"]]
    found = f"{len(told) - len(off)} of {view.counted(len(told))} steady"
    if len(told) < len(view.cells):
        found += f"; {len(view.cells) - len(told)} too short to tell"
    return Check("Steady inside the window", "warn" if off else "pass", found, _off(off, "Latency drifts in"))


def _tokens(view: View) -> Check:
    sources = {cell.row[f"{side}_tokens_source"] for cell in view.cells for side in ("prompt", "completion")}
    names = sorted(clean(source) for source in sources if source)
    odd = [cell for cell in view.cells if cell.row["echoed"] or cell.row["over_max"] or cell.row["token_mismatches"]]
    guessed = Source.ESTIMATE in names
    evidence = "Token figures are estimates where no server or tokenizer counted. " if guessed else ""
    evidence += _off(odd, "Echoed prompts, overlong replies or counts that disagree in")
    found = f"counted by {listed(names)}" if names else "not counted"
    return Check(
        "Tokens are what they say", "warn" if odd or guessed else "pass" if names else "missing", found, evidence
    )


def _prompts(view: View) -> Check | None:
    shares = [cell.row["prompts_repeated"] for cell in view.cells if cell.row["prompts_repeated"] is not None]
    if not shares:
        return None
    noticed = [cell.row for cell in view.cells if "repeated_prompts" in (cell.row["reasons"] or ())]
    cached = sum(row["cached_prompts"] or 0 for row in noticed)
    found = "no prompt was sent twice in a trial" if not max(shares) else f"up to {percent(max(shares))} sent before"
    found += f"; {cached:,} came from the endpoint's cache" if cached else ""
    evidence = "A repeated prompt may be answered from a prefix cache and flatter the endpoint."
    return Check("Prompts are fresh", "warn" if max(shares) or noticed else "pass", found, evidence)


def _stamps(view: View) -> Check | None:
    """What the load actors' selftest found before the run, at the most streams it played: the worst actor."""
    about = view.manifest.get("selftest")
    if not about:
        return None
    actors = about["actors"]
    top = max((actor["rungs"][-1] for actor in actors), key=lambda rung: rung["ttft"]["p99_ms"] or 0.0)
    late = {name: top[name.lower()]["p99_ms"] for name in ("TTFT", "chunk", "end")}
    limits = {actor["ceiling"]["limit"] for actor in actors}
    state = "warn" if "client" in limits else "missing" if "simulator" in limits else "pass"
    load = f"{count(top['streams'], 'stream')} of {about['stream_chunks_per_s']:g} chunks/s"
    errors = ", ".join(f"{name} {fixed(ms, 2)} ms" for name, ms in late.items() if ms is not None)
    vouched = count(min(actor["ceiling"]["streams"] for actor in actors), "stream")
    found = "none was stamped" if late["TTFT"] is None else f"TTFT {fixed(late['TTFT'], 2)} ms late (p99)"
    evidence = f"Before the run each load actor measured a simulator whose truth is known, with {load}. "
    evidence += f"Late, p99 of the worst actor: {errors}. That vouches for {vouched} an actor"
    evidence += "; above that the simulator was too slow to tell." if state == "missing" else "."
    return Check("The client's stamps are good", state, found, evidence)


def _simulator(view: View) -> Check | None:
    about = view.manifest.get("simulator")
    if not about:
        return None
    share, lag_ms = about.get("cpu_share_max"), about.get("lag_p99_ms")
    slow = (share or 0) > BUSY or (lag_ms or 0) > LATE_S * 1000
    found = f"{percent(share)} of a core at most" + (f", lag p99 {fixed(lag_ms, 1)} ms" if lag_ms is not None else "")
    return Check(
        "The simulator kept up",
        "warn" if slow else "pass",
        found,
        "A simulator short of CPU would read as a slow endpoint.",
    )


def _all(number: int, total: int) -> str:
    return "pass" if number == total else "warn"


def _off(cells: Sequence[Cell], said: str) -> str:
    return f"{said} {_named(cells)}." if cells else "Nothing was found."


def _named(cells: Sequence[Cell], most: int = 4) -> str:
    """The trials by name, the first few of them."""
    names = [f"{c.experiment.label}, {c.payload}, {c.load_text}" for c in cells[:most]]
    return "; ".join(names) + (f" and {len(cells) - most} more" if len(cells) > most else "")


def reasons(cell: Cell) -> str:
    """Why a trial is not simply valid, in words, each reason a sentence."""
    row: Any = cell.row
    return " ".join(f"{clean(text, 300)}." for text in (row["reason_texts"] or row["reasons"] or ()))


_CHECKS: tuple[Callable[[View], Check | None], ...] = (
    _validity,
    _finished,
    _accounted,
    _little,
    _lateness,
    _samples,
    _steady,
    _tokens,
    _prompts,
    _stamps,
    _simulator,
)
