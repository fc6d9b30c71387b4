"""The answer: its sentences and rule, the four cards, the best of each configuration, each data set's setting."""

from dataclasses import dataclass

from markupsafe import Markup

from raybench.analysis.columns import PRICE, Valid
from raybench.analysis.spoken import listed, seconds, usd
from raybench.analysis.standing import Standing
from raybench.report import columns, sentences
from raybench.report.cells import Cell
from raybench.report.naming import NamedExperiment, payload_label
from raybench.report.text import count, fixed
from raybench.report.view import View

NONE = "No trial that answered can be counted."


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence of the answer; kind is pass, none (nothing qualifies) or unsure."""

    kind: str
    html: Markup


def sentences_of(view: View) -> list[Said]:
    """The decision's own sentences, and what in the winner's favour is not certain."""
    first = "pass" if view.winner else "none"
    labels = {name: found.label for name, found in view.experiments.items()}
    said = [
        Said("unsure" if place else first, sentences.emphasized(sentence, labels))
        for place, sentence in enumerate(view.decision.sentences)
    ]
    doubts = (
        [sentences.missed(state) for state in view.winner.setting.states if state.standing is Standing.UNSURE]
        if view.winner
        else []
    )
    if doubts:
        html = Markup("<b>It passes by its best estimate only:</b> {}.").format(listed(doubts))
        said.insert(1, Said("unsure", html))
    return said


def rule(view: View) -> str:
    """By which rule the answer was chosen."""
    if not view.limits:
        return "Rule: no criterion was set, so of the trials that can be counted the cheapest is named."
    return (
        "Rule: of the trials that are VALID and ran to their end, those that meet every criterion, and of these the "
        "cheapest. If there is none, the nearest miss: the smallest product of how far each limit is exceeded."
    )


def cards(view: View) -> list[dict[str, str]]:
    """Four figures: the cheapest or the nearest miss, the fastest, where it saturates, and trust."""
    return [_cheapest(view), _fastest(view), _saturation(view), _trust(view)]


def _cheapest(view: View) -> dict[str, str]:
    cell = view.winner or view.nearest
    if cell is None:
        return _card("mute", "Cheapest", "–", NONE)
    doubtful = view.winner is not None and view.limits and cell.standing is not Standing.PASS
    what = "Cheapest by its best estimate" if doubtful else "Cheapest that meets every criterion"
    name = f"{cell.experiment.label}, {cell.load_text}."
    if not view.winner:
        name += f" Here {listed(sentences.misses_of(cell))}."
    figure = f"${usd(cell.row[PRICE])} / 10k" if cell.row[PRICE] else "no price"
    if view.winner is None:
        return _card("fail", "Nearest miss", figure, name)
    return _card("warn" if doubtful else "pass", what if view.limits else "Cheapest measured", figure, name)


def _fastest(view: View) -> dict[str, str]:
    counted = [cell for cell in view.asked if cell.counted and cell.row["latency_mean"] is not None]
    inside = [cell for cell in counted if cell.met]
    cell = min(inside or counted, key=lambda cell: cell.row["latency_mean"], default=None)
    if cell is None:
        return _card("mute", "Fastest", "–", NONE)
    what = "Fastest inside the limits" if inside and view.limits else "Fastest measured"
    name = f"{cell.experiment.label}, {cell.load_text}"
    price = f", ${usd(cell.row[PRICE])} / 10k" if cell.row[PRICE] else ""
    return _card("pass" if inside else "mute", what, f"{seconds(cell.row['latency_mean'])} s mean", f"{name}{price}.")


def _saturation(view: View) -> dict[str, str]:
    knees = [knee for line in columns.lines(view.asked).values() if (knee := columns.knee(line))]
    reached = [knee for knee in knees if knee.reached]
    if not reached:
        said = "No configuration stopped scaling within the loads tried." if knees else "Too few loads to tell."
        return _card("mute", "Saturation", "not reached" if knees else "–", said)
    knee = max(reached, key=lambda knee: knee.best.row["transactions_per_minute"])
    figure = f"{fixed(knee.best.row['transactions_per_minute'], 0)} requests/min"
    others = len(knees) - len(reached)
    said = f"{knee.cell.experiment.label}, from {knee.cell.load_text} on: more load only waits longer."
    return _card(
        "info", "Saturates near", figure, said + (f" {count(others, 'other')} still scale." if others else "")
    )


def _trust(view: View) -> dict[str, str]:
    if not view.cells:
        return _card("mute", "Trust", "–", "No trial can be counted.")
    invalid = sum(not cell.valid for cell in view.cells)
    doubtful = sum(cell.row["valid"] == Valid.INCONCLUSIVE for cell in view.cells)
    if invalid:
        said = f"of {view.counted(len(view.cells))}, struck through below; see Trust for the reasons."
        return _card("fail", "Trust", f"{invalid} INVALID", said)
    if doubtful:
        said = f"of {view.counted(len(view.cells))}: they may be right, but cannot tell. See Trust."
        return _card("warn", "Trust", f"{doubtful} inconclusive", said)
    return _card("pass", "Trust", "all valid", f"{view.counted(len(view.cells))}; the checks are under Trust.")


def _card(kind: str, what: str, figure: str, more: str) -> dict[str, str]:
    return {"kind": kind, "what": what, "figure": figure, "more": more}


def ranked(view: View) -> list[tuple[Cell, str]]:
    """Each configuration's cheapest setting that meets every criterion, else its nearest miss; best first."""
    found = []
    for experiment in view.experiments.values():
        winner, nearest = view.choice(view.payload_name, experiment.key)
        cell = winner or nearest
        if cell is not None:
            found.append((cell, _why(cell)))
    order = [Standing.PASS, Standing.UNSURE, Standing.FAIL, Standing.MISSING]
    found.sort(key=lambda pair: (order.index(pair[0].standing), pair[0].setting.rank))
    return found


def _why(cell: Cell) -> str:
    if cell.standing in (Standing.FAIL, Standing.UNSURE):
        return ("nearest miss: " if not cell.met else "") + listed(sentences.misses_of(cell))
    return cell.standing_text


@dataclass(frozen=True, slots=True)
class Choice:
    """What to choose for one data set on one configuration."""

    payload: str
    experiment: NamedExperiment
    state: Standing
    glyph: str
    html: Markup


def choices(view: View) -> list[Choice]:
    """One per data set and configuration: data sets in the order of the config."""
    found = []
    for payload, experiment in sorted(view.pairs(), key=lambda pair: view.place(pair[0])):
        winner, nearest = view.choice(payload, experiment)
        cell = winner or nearest
        if winner is not None:
            html = _choice(winner)
        elif nearest is not None:
            html = Markup("None of the loads tried meets every criterion. Nearest: {}, where {}.").format(
                nearest.load_text, sentences.account(nearest)
            )
        else:
            html = Markup(NONE)  # noqa: S704
        state, glyph = (cell.standing, cell.glyph) if cell else (Standing.MISSING, "–")
        found.append(Choice(payload_label(payload), view.experiments[experiment], state, glyph, html))
    return found


def _choice(cell: Cell) -> Markup:
    passes = cell.standing is Standing.PASS
    head = "Cheapest that meets every criterion" if passes else "Cheapest by its best estimate"
    size = fixed(cell.row["prompt_token_count_mean"], 0)
    doubts = listed(sentences.misses_of(cell))
    said = sentences.measured(cell) + (f" Prompts of {size} tokens on average." if size != "–" else "")
    return Markup("{}: <b>{}</b>, {}").format(head, cell.load_text, said + (f" But {doubts}." if doubts else ""))
