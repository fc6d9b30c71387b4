"""Whether two runs may be compared: what they must share, and what is only remarked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Manifest = Mapping[str, Any]
Key = tuple[str, str, str]
"""A cell of a run: experiment, payload, load."""

SAME_RUN = ("region", "model", "criteria")
SAME_EXPERIMENT = (
    "instance_type", "instance_count", "simulated", "container", "route", "dialect", "parameters"
)  # fmt: skip
SAME_TRIAL = ("kind", "concurrency", "rate", "load_hash")
KNOWN = ("model", "load_hash")
"""What is only told apart where both runs say something."""

STOOD_FOR_HASH = ("datasets", "tokens", "language", "kept", "dropped", "prompt_tokens_mean")
"""What tells prompts apart, more or less, where a run has no hash of them."""

REMARKED_RUN = ("raybench", "seed")
REMARKED_CONFIG = ("timeouts", "fleet")
REMARKED_EXPERIMENT = ("price_per_hour",)
REMARKED_TRIAL = ("warmup_s",)
MOST_CHARS = 80


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same in both runs: whose, what, and how it is in each; all written harmlessly."""

    whose: str
    what: str
    base: str
    candidate: str

    @property
    def text(self) -> str:
        """`experiment "e": route is "stream" in the base, "invoke" in the candidate`."""
        return f"{self.whose}: {self.what} is {self.base} in the base, {self.candidate} in the candidate"


def differences(base: Manifest, candidate: Manifest) -> tuple[Difference, ...]:
    """Why the runs are not comparable: differences of what both have; none is what it should be."""
    return (
        *_of("the run", SAME_RUN, base, candidate, known=KNOWN),
        *_of_named("experiment", "experiments", SAME_EXPERIMENT, base, candidate),
        *_payloads(base, candidate),
        *_kinds(base, candidate),
        *_of_trials(SAME_TRIAL, base, candidate),
    )


def remarks(base: Manifest, candidate: Manifest) -> tuple[Difference, ...]:
    """Differences that do not forbid a comparison, but may explain what it finds."""
    return (
        *_of("the run", REMARKED_RUN, base, candidate),
        *_of("the config", REMARKED_CONFIG, _config(base), _config(candidate), known=REMARKED_CONFIG),
        *_of_named("experiment", "experiments", REMARKED_EXPERIMENT, base, candidate),
        *_of_trials(REMARKED_TRIAL, base, candidate),
    )


def _config(run: Manifest) -> Manifest:
    """The config as a run's file has it; nothing where it has none."""
    config = run.get("config")
    return config if isinstance(config, Mapping) else {}


def unhashed(base: Manifest, candidate: Manifest) -> list[str]:
    """Payloads whose prompts are taken to be the same by description, one run having no hash of them."""
    return [name for name, ours, theirs in _shared("payloads", base, candidate) if not _hashed(ours, theirs)]


def _of(
    whose: str, names: Sequence[str], base: Manifest, candidate: Manifest, known: Sequence[str] = ()
) -> Iterator[Difference]:
    """Unequal values of `names`; those of `known` only where both runs say something."""
    for name in names:
        ours, theirs = base.get(name), candidate.get(name)
        if ours != theirs and not (name in known and None in (ours, theirs)):
            yield Difference(whose, name, _shown(ours), _shown(theirs))


def _of_named(
    kind: str, things: str, names: Sequence[str], base: Manifest, candidate: Manifest
) -> Iterator[Difference]:
    for name, ours, theirs in _shared(things, base, candidate):
        yield from _of(f"{kind} {_shown(name)}", names, ours, theirs)


def _payloads(base: Manifest, candidate: Manifest) -> Iterator[Difference]:
    for name, ours, theirs in _shared("payloads", base, candidate):
        asked = ("payload_hash",) if _hashed(ours, theirs) else STOOD_FOR_HASH
        yield from _of(f"payload {_shown(name)}", asked, ours, theirs)


def _hashed(ours: Manifest, theirs: Manifest) -> bool:
    return bool(ours.get("payload_hash") and theirs.get("payload_hash"))


def _kinds(base: Manifest, candidate: Manifest) -> Iterator[Difference]:
    """Where one run loads an experiment and payload in none of the ways that the other does."""
    ours, theirs = _kinds_of(base), _kinds_of(candidate)
    for pair, kinds in theirs.items():
        if pair in ours and not kinds & ours[pair]:
            whose = f"experiment {_shown(pair[0])}, payload {_shown(pair[1])}"
            yield Difference(whose, "load kind", _shown(sorted(ours[pair])), _shown(sorted(kinds)))


def _kinds_of(manifest: Manifest) -> dict[tuple[str, str], set[str]]:
    kinds: dict[tuple[str, str], set[str]] = {}
    for trial in manifest["trials"]:
        kinds.setdefault((trial["experiment"], trial["payload"]), set()).add(str(trial["kind"]))
    return kinds


def _of_trials(names: Sequence[str], base: Manifest, candidate: Manifest) -> Iterator[Difference]:
    ours, theirs = ({key_of(trial): trial for trial in run["trials"]} for run in (base, candidate))
    for key in theirs:
        if key in ours:
            yield from _of(f"trial {_shown('~'.join(key))}", names, ours[key], theirs[key], known=KNOWN)


def key_of(trial: Mapping[str, Any]) -> Key:
    """The cell that a trial is of."""
    return trial["experiment"], trial["payload"], trial["load"]


def _shared(things: str, base: Manifest, candidate: Manifest) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name and both descriptions of the experiments or payloads that both runs have."""
    ours = {thing["name"]: thing for thing in base[things]}
    for thing in candidate[things]:
        if thing["name"] in ours:
            yield thing["name"], ours[thing["name"]], thing


def _shown(value: Any) -> str:
    """A value from a run's file as ASCII JSON, cut short: no control character comes through."""
    shown = json.dumps(value, sort_keys=True, default=str)
    return shown if len(shown) <= MOST_CHARS else shown[: MOST_CHARS - 1] + "…"
