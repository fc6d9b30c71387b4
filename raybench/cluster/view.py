"""A snapshot of a run in words: a few lines per experiment for a terminal, or one plain line."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

SILENT_S = 3.0
"""An actor not heard of for so long is called silent; it gives a sign of life twice a second."""

BAR = 20
LINES, ACTORS = 5, 6
"""How many lines an experiment takes, and how many of its actors are named; the others are counted."""

Snapshot = Mapping[str, Any]


def view(run: Snapshot, height: float = math.inf) -> Text:
    """The run for a terminal, no line wrapped; where it would be higher than `height`, a line per experiment."""
    lines, each = [Text(headline(run), "bold")], run["experiments"]
    if 1 + LINES * len(each) > height:
        lines += map(Text, map(line, each))
    else:
        lines += (text for one in each for text in _experiment(one, alone=len(each) == 1))
    whole = Text("\n").join(lines)
    whole.no_wrap, whole.overflow = True, "ellipsis"
    return whole


def headline(run: Snapshot) -> str:
    """How long the run goes on, how much longer, and what it has cost."""
    money = _spent(run, any(one["simulated"] for one in run["experiments"]))
    return ", ".join((run["name"], f"{clock(run['elapsed_s'])} so far", _left(run["left_s"]), *money))


def line(one: Snapshot) -> str:
    """One experiment's trial in one plain line."""
    if one["state"] == "waiting":
        return f"{one['experiment']}: waiting"
    return ", ".join((_trial(one), *_figures(one), _left(one["trial_left_s"]), *_silent(one)))


def _experiment(one: Snapshot, *, alone: bool) -> Iterator[Text]:
    yield Text(one["experiment"])
    if one["state"] == "waiting":
        yield Text("  waiting")
        return
    money = "" if alone else "".join(f", {part}" for part in _spent(one, one["simulated"]))
    yield Text(f"  {_trial(one, named=False)}{money}")
    yield Text.assemble("  ", _bar(one), f" {_progress(one)}, {_left(one['trial_left_s'])}")
    failed = Text(_failed(one), "red" if one["failed"] else "")
    yield Text(", ").join([Text(f"  {_rate(one)}"), failed, *map(Text, _times(one))])
    yield Text("  ") + _actors(one)


def _trial(one: Snapshot, *, named: bool = True) -> str:
    name = f"{one['experiment']} " if named else ""
    return f"[{one['trial']}/{one['trials']}] {name}{one['payload']} {one['load']}"


def _figures(one: Snapshot) -> list[str]:
    return [_progress(one), _rate(one), _failed(one), *_times(one)]


def _progress(one: Snapshot) -> str:
    of = f" of {one['planned_requests']}" if one["planned_requests"] else ""
    return f"{one['measured']}{of} measured"


def _rate(one: Snapshot) -> str:
    return f"{one['requests_per_s']:.3g} requests/s"


def _failed(one: Snapshot) -> str:
    return f"{one['failed']} of {one['requests']} failed"


def _times(one: Snapshot) -> Iterator[str]:
    for name in ("p50", "p95"):
        needs, value = one[f"latency_{name}_needs"], one[f"latency_{name}_s"]
        if needs:
            yield f"{name} needs {needs} more"
        else:
            yield f"{name} {duration(value)}" if value is not None else f"{name} never finished"
    late = one["lateness_p99_s"]
    yield "sent nothing yet" if late is None else f"sent {1000 * late:.1f} ms late (p99)"


def _spent(of: Snapshot, simulated: bool) -> list[str]:
    if of["spent_usd"] is None:
        return []
    planned = "" if of["planned_usd"] is None else f" of ${of['planned_usd']:.2f} planned"
    return [f"${of['spent_usd']:.2f}{planned}" + (" (simulated: not billed)" if simulated else "")]


def _left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"about {clock(seconds)} left"


def _bar(one: Snapshot) -> Text:
    whole, left = one["elapsed_s"], one["trial_left_s"]
    share = 1.0 if one["state"] == "played" else whole / (whole + left) if left else 0.0
    done = round(BAR * min(1.0, share))
    return Text("━" * done, "green") + Text("─" * (BAR - done), "dim")


def _silent(one: Snapshot) -> list[str]:
    if one["state"] != "playing":
        return []
    return [f"{actor} SILENT for {ago:.0f} s" for actor, ago in one["heard_s_ago"].items() if ago > SILENT_S]


def _actors(one: Snapshot) -> Text:
    """Each actor's last sign of life, longest ago first."""
    heard = sorted(one["heard_s_ago"].items(), key=lambda pair: -pair[1])
    if one["state"] != "playing" or not heard:
        return Text("between trials" if heard else "no actor heard of yet")
    words = [_heard(actor.removeprefix(f"{one['experiment']}-"), ago) for actor, ago in heard[:ACTORS]]
    if len(heard) > ACTORS:
        words.append(Text(f"{len(heard) - ACTORS} more since"))
    return Text("heard from actor ") + Text(", ").join(words)


def _heard(actor: str, ago: float) -> Text:
    silent = ago > SILENT_S
    return Text(
        f"{actor} {'SILENT for ' if silent else ''}{ago:.1f} s{'' if silent else ' ago'}", "red" if silent else ""
    )


def duration(seconds: float) -> str:
    """Seconds with three digits: milliseconds below one."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def clock(seconds: float) -> str:
    """Minutes and seconds, hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
