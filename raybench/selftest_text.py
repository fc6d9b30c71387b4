"""What a selftest says: a line before a run, a table on its own."""

from raybench.analysis.spoken import aligned
from raybench.cluster.calibration import CHUNKS_PER_S, ERROR_MS, Figures
from raybench.selftest import Limit, Measured, Selftest

_ERRORS = ("TTFT p50", "p99", "max", "chunk p50", "p99", "max", "end p99")
_RATES = ("late p99", "planned/s", "sent/s", "chunks/s", "core", "simulator's", "")


def line(found: Selftest) -> str:
    """The figures in one line: those of the actor with the largest error at its largest load."""
    worst = max(
        (each.rungs[-1] for each in found.actors), key=lambda rung: (rung.late_ms is None, rung.late_ms or 0.0)
    )
    late = "unknown" if worst.late_ms is None else f"{worst.late_ms:.1f} ms"
    said = f"tokens are stamped {late} late (p99), {worst.streams} streams of {CHUNKS_PER_S:g} chunks/s an actor"
    return said if worst.passes else f"{said}: {_blame(worst)}"


def text(found: Selftest) -> str:
    """The figures for people: a line per rung and actor, and a sentence for each actor."""
    head = ("actor", "host", "streams", *_ERRORS, *_RATES)
    lines = [head, *(_cells(each, rung) for each in found.actors for rung in each.rungs)]
    errors = "Errors of the client's stamps in ms (client - server); a core is the share of one that a process used."
    return "\n".join((errors, "", *aligned(lines), "", *map(_sentence, found.actors)))


def _cells(each: Measured, rung: Figures) -> tuple[str, ...]:
    ttft, chunk, end = rung.ttft, rung.chunk, rung.end
    errors = (ttft.p50_ms, ttft.p99_ms, ttft.max_ms, chunk.p50_ms, chunk.p99_ms, chunk.max_ms, end.p99_ms)
    late = "-" if rung.lateness_p99_ms is None else f"{rung.lateness_p99_ms:.2f}"
    rates = (f"{rung.planned_per_s:.1f}", f"{rung.sent_per_s:.1f}", f"{rung.chunks_per_s:,.0f}")
    shares = (f"{rung.cpu_share:.0%}", f"{rung.simulator_cpu_share:.0%}")
    shown = ("-" if ms is None else f"{ms:.2f}" for ms in errors)
    said = "ok" if rung.passes else _blame(rung)
    return (each.actor, each.host, str(rung.streams), *shown, late, *rates, *shares, said)


def _blame(rung: Figures) -> str:
    return "client too slow" if rung.simulator_kept_up else "simulator too slow to tell"


def _sentence(each: Measured) -> str:
    ceiling = each.ceiling
    above = {
        Limit.CLIENT: "more are too many for one actor here: use more actors",
        Limit.SIMULATOR: "above that the simulator did not keep up, which says nothing about the client",
        Limit.UNTESTED: "more were not tried",
    }[ceiling.limit]
    within = f"{ceiling.streams} streams with tokens stamped at most {ERROR_MS:g} ms late (p99)"
    return f"{each.actor} carries {within if ceiling.streams else 'no stream so'}; {above}."
