"""What is said of two runs in sentences: the answer, the rules it follows, and what a reader must know first."""

import math
from collections.abc import Sequence

from raybench.analysis.change import CALLABLE_ONCE, POINTS, SPREAD, ZONE, Call, Change
from raybench.analysis.columns import criterion_unit
from raybench.analysis.compare import Comparison, Pair
from raybench.analysis.decide import Phrase, Sentence
from raybench.analysis.spoken import listed
from raybench.report.banners import Banner
from raybench.report.compared import NAMES, labels, shown_of
from raybench.report.text import clean, count
from raybench.states import RunState

UNITS = {"s": " s", "USD": " USD per 10k"}
"""Unit -> what follows its numbers in a sentence."""


def sentences(comparison: Comparison) -> list[tuple[str, Sentence]]:
    """The answer in one or two sentences, each with its kind: none (worse), pass or unsure."""
    each = comparison.called()
    if not each:
        return [("unsure", (Phrase("Nothing can be compared", True), Phrase(": no cell counts in both runs.")))]
    worse, better = comparison.called(Call.WORSE), comparison.called(Call.BETTER)
    said: list[tuple[str, Sentence]] = []
    if worse:
        said.append(("none", (Phrase("Worse", True), *_most(comparison, worse))))
    elif not better and not comparison.called(Call.SAME):
        said.append(("unsure", (Phrase("Nothing can be called", True), Phrase(": every interval is too wide."))))
    else:
        calls = listed([f"{len(comparison.called(call)):,} {said}" for call, said in _CALLED.items()])
        said_of = Phrase(f" in {_comparisons(comparison)}: {calls}.")
        said.append(("pass", (Phrase("Nothing is called worse", True), said_of)))
    if better:
        said.append(("pass", (Phrase("Better", True), *_most(comparison, better))))
    return said


_CALLED = {Call.BETTER: "better", Call.SAME: "the same", Call.UNSURE: "can't be told"}


def _comparisons(comparison: Comparison) -> str:
    return count(len(comparison.called()), "comparison")


def _most(comparison: Comparison, found: Sequence[tuple[Pair, Change]]) -> Sentence:
    pair, change = max(found, key=lambda one: abs(math.log(one[1].ratio.value or 1.0)))
    shown, unit = shown_of(change), UNITS.get(criterion_unit(change.metric), "")
    where = f" in {len(found):,} of {_comparisons(comparison)}: most of all the {NAMES[change.metric][0]} of "
    said = f", {shown.change} {shown.interval}, from {shown.before} to {shown.after}{unit}."
    return Phrase(where), Phrase(labels(comparison)[pair.key]), Phrase(said)


def rules(comparison: Comparison) -> list[str]:
    """By which rules changes are called, and what the intervals do not cover."""
    number, spread = len(comparison.called()), f"{SPREAD * 100:.0f} %"
    rise, fall = (ratio - 1 for ratio in CALLABLE_ONCE)
    tame = f", with a spread of no more than {spread} between single runs" if comparison.once else ""
    said = [
        f"Rule: worse or better where the whole 95 % interval of candidate ÷ base lies outside ±{ZONE * 100:.0f} %, "
        "the same where it lies inside, else it can't be told. Error rates are the same where their difference, "
        f"interval and all, is at most {POINTS * 100:.0f} percentage point.",
        f"{_comparisons(comparison)} were made, none corrected for their number: had nothing changed{tame}, chance "
        f"alone would call at most {math.ceil(number * 0.025)} of them worse, on average.",
    ]
    welch = any(change.welch for _, change in comparison.called())
    if welch:
        said.append(
            "Cells with repeats in both runs: Welch's interval between whole trials, on logarithms. It does not "
            "cover how one day differs from another."
        )
    if comparison.once:
        said.append(
            "Cells without repeats in both runs: the interval is put together from those of single trials, and a "
            f"spread of {spread} between runs is allowed for, which nothing here measured; `repeats:` in both runs, "
            "such as 5, measures it. So nothing there is called the same but error rates, and nothing worse or "
            f"better that rose by less than {rise * 100:.0f} % or fell by less than {-fall * 100:.0f} %."
        )
    return said


def banners(comparison: Comparison) -> list[Banner]:
    """What a reader must know first: forced, simulated, partial, prompts taken on trust."""
    found = []
    if comparison.differences:
        said = "They were compared all the same, as asked: a change may come from what is listed under “Differences”."
        found.append(Banner("invalid", "These runs are not comparable.", said))
    if comparison.base.get("simulated") or comparison.candidate.get("simulated"):
        said = "Endpoints are simulated: the numbers show how raybench works, not what an instance can do."
        found.append(Banner("simulated", "Simulated.", said))
    for run, side in ((comparison.base, "base"), (comparison.candidate, "candidate")):
        if run.get("state") != RunState.DONE:
            state = f"The {side}'s state is “{clean(run.get('state'))}”"
            found.append(Banner("partial", "Partial.", f"{state}: what did not run to the end is not compared."))
    if comparison.unhashed:
        names = listed([clean(name) for name in comparison.unhashed[:5]])
        said = f"One run keeps no hash of its prompts ({names}): they are taken to be the same by their description."
        found.append(Banner("partial", "Prompts not checked.", said))
    return found
