"""What a search says."""

from raybench.cluster.search import Searched


def sentence(searched: Searched) -> str:
    """What came of a search, in one sentence."""
    search, verdict = searched.search, searched.verdict
    about = f"{searched.trial.experiment}, {searched.trial.payload}"
    asked = f"{search.metric} <= {search.limit_s:g} s"
    if verdict is None:
        return f"{about}: the search for the highest rate with {asked} was interrupted."
    cost = f"{verdict.probes} probe{'' if verdict.probes == 1 else 's'}"
    cost += f", {verdict.seconds / 60:.1f} of at most {search.max_s / 60:g} min"
    if verdict.usd is not None:
        cost += f", {verdict.usd:.2f} {'' if search.max_usd is None else f'of at most {search.max_usd:.2f} '}USD"
    failing = "no rate failed" if verdict.failing is None else f"{verdict.failing:g}/s failed"
    if verdict.rate is not None:
        gap = "" if verdict.failing is None else f", {verdict.failing / verdict.rate - 1:.0%} above"
        return f"{about}: {verdict.rate:g} requests/s certified for {asked}; {failing}{gap} ({cost})."
    passed = "no rate passed" if verdict.passed is None else f"{verdict.passed:g}/s passed a short probe"
    return f"{about}: no rate certified for {asked}: {verdict.reason}; {passed}, {failing} ({cost})."
