"""Compares two run directories: reads both, writes compare.html and compare.md, and says it as text or JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from raybench.analysis import compare as room
from raybench.analysis import reduce, searched
from raybench.analysis.change import POINTS, ZONE, Call, Change
from raybench.analysis.columns import TRIALS
from raybench.analysis.comparable import Key
from raybench.analysis.compare import Comparison, Pair, Run
from raybench.analysis.decide import plain
from raybench.analysis.spoken import aligned
from raybench.errors import CriteriaMissedError, InputError
from raybench.report import called, compared, comparison
from raybench.rows import SCHEMA_VERSION
from raybench.rundir import RunDir

MOST_LINES = 40
NEEDED = ("run_id", "name", "criteria", "experiments", "payloads", "trials")


def compare(base: Path, candidate: Path, out: Path | None = None, anyway: bool = False) -> Comparison:
    """Compares two run directories and writes the comparison into `out`, by default CANDIDATE/compare-BASE_RUN_ID.

    InputError where one is no run, or they are not comparable and `anyway` does not say so.
    """
    if base.resolve() == candidate.resolve():
        raise InputError("is compared with itself", where=str(base), allowed="two runs")
    before, after = _run(base), _run(candidate)
    found = room.compare(before, after, anyway=anyway)
    place = RunDir(folder(found, candidate, out))
    place.write("compare.html", comparison.page(found).encode())
    place.write("compare.md", comparison.markdown(found).encode())
    return found


def folder(found: Comparison, candidate: Path, out: Path | None = None) -> Path:
    """Where the comparison is written."""
    return out or candidate / f"compare-{quote(str(found.base['run_id']), safe='')[:100]}"


def _run(path: Path) -> Run:
    """A run's numbers, made anew from its rows, so that both runs' are made alike; or from trials.parquet alone."""
    rundir = RunDir.open(path)
    try:
        manifest = rundir.manifest()
        missing = [key for key in NEEDED if key not in manifest]
        if missing or manifest.get("schema") != SCHEMA_VERSION:
            raise InputError(
                f"is not a run.json of schema {SCHEMA_VERSION}", where=str(path / "run.json"), allowed="a whole one"
            )
        named = [thing["name"] for things in ("experiments", "payloads") for thing in manifest[things]]
        named += [trial[key] for trial in manifest["trials"] for key in ("experiment", "payload", "load")]
        if not all(isinstance(name, str) for name in named):
            raise TypeError
        if (path / "requests").is_dir() or (path / "spool").is_dir():
            return Run(manifest, searched.counted(reduce.reduce(rundir.requests, manifest), manifest).trials)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, pa.ArrowException) as error:
        why = type(error).__name__
        raise InputError(f"cannot be read ({why})", where=str(path), allowed="a whole run directory") from None
    return Run(manifest, _trials(path / "trials.parquet"))


def _trials(path: Path) -> pa.Table:
    """The trials table of a run whose rows are gone."""
    try:
        table = pq.read_table(path, partitioning=None)
        return table.select(TRIALS.names).cast(TRIALS)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(
            f"cannot be read ({type(error).__name__})", where=str(path), allowed="rows, or the trials of this version"
        ) from None


def gate(found: Comparison, *, enforce: bool) -> None:
    """CriteriaMissedError if a gate is asked for and anything is called worse."""
    worse = len(found.called(Call.WORSE))
    if enforce and worse:
        raise CriteriaMissedError(f"{worse} of {len(found.called())} comparisons are worse")


def text(found: Comparison) -> str:
    """The comparison as plain text: the answer, and a line per cell, those with a worse metric first."""
    heads = ("cell", *(compared.NAMES[metric][0] for metric in compared.metrics(found)))
    lines = [line for line in compared.lines(found)]
    lines.sort(key=lambda line: min(list(Call).index(one.call) for one in line.shown if one))
    cells = [(line.name, *(_said(one) for one in line.shown)) for line in lines[:MOST_LINES]]
    said = [plain(sentence) for _, sentence in called.sentences(found)]
    said += ["", *aligned([heads, *cells])] if cells else []
    more = len(lines) - len(cells)
    said += [f"… and {more} more cells" if more > 1 else "… and one more cell"] if more else []
    left = list(compared.left_out(found))
    said += ["", *(f"not compared: {name}: {why}" for name, why in left[:10])] if left else []
    said += [f"… and {len(left) - 10} more"] if len(left) > 10 else []
    banners = [f"{banner.head} {banner.said}" for banner in called.banners(found)]
    return "\n".join([*said, "", *banners, *called.rules(found)])


def _said(one: compared.Shown | None) -> str:
    return "–" if one is None else f"{one.glyph} {one.change}{'' if one.call is Call.UNSURE else f' {one.call}'}"


def as_dict(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON values."""
    return {
        "base": found.base["run_id"],
        "candidate": found.candidate["run_id"],
        "zone": ZONE,
        "error_rate_points": POINTS,
        "comparisons": len(found.called()),
        "calls": {str(call): len(found.called(call)) for call in Call},
        "day_to_day_covered": not found.once,
        "cells": [_cell(pair) for pair in found.pairs],
        "only_base": list(_keys(found.only_base)),
        "only_candidate": list(_keys(found.only_candidate)),
        "differences": [asdict(each) for each in found.differences],
        "remarks": [asdict(each) for each in found.remarks],
        "payloads_not_hashed": list(found.unhashed),
    }


def as_json(found: Comparison) -> str:
    """The comparison as ASCII JSON."""
    return json.dumps(as_dict(found), indent=1, allow_nan=False)


def _keys(keys: tuple[Key, ...]) -> Iterator[Mapping[str, str]]:
    for key in keys:
        yield dict(zip(("experiment", "payload", "load"), key, strict=True))


def _cell(pair: Pair) -> dict[str, Any]:
    sides = {"base": pair.base, "candidate": pair.candidate}
    trials = {side: list(setting.trial_ids) for side, setting in sides.items()}
    changes = [_change(change) for change in pair.changes]
    return {**next(iter(_keys((pair.key,)))), "trials": trials, "uncalled": pair.uncalled or None, "changes": changes}


def _change(change: Change) -> dict[str, Any]:
    return {
        "metric": change.metric,
        "call": str(change.call),
        "base": asdict(change.base),
        "candidate": asdict(change.candidate),
        "ratio": asdict(change.ratio),
        "difference": None if change.difference is None else asdict(change.difference),
        "interval": "between repeats" if change.welch else "within trials",
        "needed": change.needed,
        "needed_unit": "repeats" if change.welch and change.difference is None else "requests",
        "why": change.why or None,
    }
