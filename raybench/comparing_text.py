"""A comparison as it is shown: lines for people, values for programs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from raybench.analysis.change import POINTS, SPREAD, ZONE, Call, Change
from raybench.analysis.comparable import Key
from raybench.analysis.compare import Comparison, Pair
from raybench.analysis.decide import plain
from raybench.analysis.spoken import aligned
from raybench.report import called, compared

MOST_LINES = 40


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
    said += ["", "Differences:", *(f"  {each.text}" for each in found.differences)] if found.differences else []
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
        "spread_between_runs": "allowed for" if found.once else "measured",
        "spread_allowed": SPREAD,
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
        "interval": "between repeats" if change.welch else "within trials, and the spread allowed",
        "needed": change.needed,
        "needed_unit": "repeats" if change.welch and change.difference is None else "requests",
        "why": change.why or None,
    }
