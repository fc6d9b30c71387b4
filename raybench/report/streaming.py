"""Streaming as columns: what a user sees against what tokens cost, first tokens, gaps, and where the time goes."""

from collections.abc import Sequence

from raybench.analysis.spoken import listed, percent, seconds, usd
from raybench.report.cells import Cell
from raybench.report.columns import Rows, errors, identity
from raybench.report.text import fixed

PARTS = {"client_mean": "client", "prefill_mean": "queue + prefill", "decode_mean": "decode"}
_USER = "output_tokens_per_s_per_user_mean"
_TOKENS = "price_per_1m_output_tokens"


def interactivity(cells: Sequence[Cell]) -> Rows:
    """One row per setting that can be read, streams and has a price: tokens a second for each user, USD per million.

    On the frontier: nothing that counts gives a user as many tokens a second for less.
    """
    rows: Rows = []
    named: set[str] = set()
    known = [cell for cell in cells if cell.valid and cell.row[_USER] and cell.row[_TOKENS]]
    frontier = _frontier([cell for cell in known if cell.counted])
    for cell in sorted(known, key=lambda cell: (cell.experiment.label, cell.level)):
        label = cell.experiment.label
        rows.append(
            identity(cell)
            | {
                "tokens_per_s": cell.row[_USER],
                "tokens_per_s_low": cell.row[f"{_USER}_low"],
                "tokens_per_s_high": cell.row[f"{_USER}_high"],
                "usd": cell.row[_TOKENS],
                "usd_low": cell.row[f"{_TOKENS}_low"],
                "usd_high": cell.row[f"{_TOKENS}_high"],
                "frontier": cell in frontier,
                "live": "frontier" if cell in frontier else "behind" if cell.counted else "not counted",
                "errors": errors(cell),
                "standing": cell.standing_text,
                "first": label not in named and cell.experiment.colour != "mute",
            }
        )
        named.add(label)
    return rows


def _frontier(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that no other beats on both, fastest first."""
    found: list[Cell] = []
    for cell in sorted(cells, key=lambda cell: (-cell.row[_USER], cell.row[_TOKENS])):
        if not found or cell.row[_TOKENS] < found[-1].row[_TOKENS]:
            found.append(cell)
    return found


def interactivity_said(cells: Sequence[Cell]) -> str:
    """The two ends of the frontier."""
    found = _frontier([cell for cell in cells if cell.counted and cell.row[_USER] and cell.row[_TOKENS]])
    if not found:
        return "Down and right is better. No trial that streams can be counted."
    ends = [found[0], found[-1]] if len(found) > 1 else found
    said = [
        f"{fixed(cell.row[_USER], 1)} tokens/s for each user at ${usd(cell.row[_TOKENS])} per million output tokens "
        f"({cell.experiment.label}, {cell.load_text})"
        for cell in ends
    ]
    return f"Down and right is better. Nothing measured is both faster and cheaper than these: {'; '.join(said)}."


def first_tokens(cells: Sequence[Cell]) -> Rows:
    """Time to first token by load, in seconds."""
    return _by_load(cells, "ttft", 1)


def gaps(cells: Sequence[Cell]) -> Rows:
    """Inter-token latency by load, in milliseconds."""
    return _by_load(cells, "itl", 1000)


def _by_load(cells: Sequence[Cell], metric: str, scale: float) -> Rows:
    rows: Rows = []
    shown = [c for c in cells if c.valid and c.level and c.row[f"{metric}_p50"]]
    last = {cell.experiment.label: cell for cell in sorted(shown, key=lambda cell: cell.level)}
    for cell in shown:
        values = {p: cell.row[f"{metric}_{p}"] for p in ("p50", "p95")}
        row = {p: None if value is None else value * scale for p, value in values.items()}
        rows.append(identity(cell) | row | {"last": last[cell.experiment.label] is cell})
    return rows


def parts(cells: Sequence[Cell]) -> Rows:
    """One row per setting and part of its mean latency: seconds, and the share of the whole."""
    rows: Rows = []
    for cell in cells:
        known = {said: cell.row[name] for name, said in PARTS.items()}
        if not cell.valid or None in known.values() or not (whole := sum(known.values())):
            continue
        rows += [
            identity(cell) | {"part": said, "place": place, "mean_s": mean, "share": mean / whole}
            for place, (said, mean) in enumerate(known.items())
        ]
    return rows


def parts_said(rows: Rows) -> str:
    """How much of a request is waiting for its first token, at the lowest and the highest load."""
    wait = [row for row in rows if row["part"] == PARTS["prefill_mean"]]
    said = []
    for label in dict.fromkeys(row["config"] for row in wait):
        line = sorted((row for row in wait if row["config"] == label), key=lambda row: row["level"])
        first, last = line[0], line[-1]
        share = f"{percent(first['share'])} of a request at load {first['level_text']}"
        said.append(
            f"{label}: {share}" + (f", {percent(last['share'])} at {last['level_text']}" if last is not first else "")
        )
    if not said:
        return ""
    return f"The wait for the first token (queue and prefill) is, on {listed(said[:4])}" + (
        f" and {len(said) - 4} more configurations." if len(said) > 4 else "."
    )


def numbers(cells: Sequence[Cell]) -> list[tuple[Cell, list[str]]]:
    """The same as a table, a line per setting: TTFT p50 and p95 (s), ITL p50 and p95 (ms), parts (s)."""
    lines = []
    for cell in cells:
        row = cell.row
        if row["ttft_p50"] is None and row["itl_p50"] is None and row["prefill_mean"] is None:
            continue
        gaps_ms = [None if row[name] is None else row[name] * 1000 for name in ("itl_p50", "itl_p95")]
        line = [*(row[name] for name in ("ttft_p50", "ttft_p95")), *gaps_ms, *(row[name] for name in PARTS)]
        lines.append((cell, [seconds(value) for value in line]))
    return lines
