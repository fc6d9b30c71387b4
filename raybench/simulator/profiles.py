"""What an endpoint is like: the timing of its model server, and how it talks.

The two Llama-2-70b profiles are four-parameter fits to the nine (p4d) and seven (g5) mean latencies of a published
benchmark report: interpolation between those points, not physics.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from raybench.errors import InputError

DIALECTS = ("tgi", "lmi", "jumpstart", "openai")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What all profiles share: `tokens` is the natural length of a completion, `jitter` the relative standard
    deviation of each step's time, `dialect` (tgi, lmi, jumpstart) answers bodies with `inputs`, and with a
    `prefix_cache` a prompt that came before costs no prefill."""

    name: str
    tokens: int
    tokens_per_chunk: int = 1
    jitter: float = 0.0
    dialect: str = "tgi"
    variant: str = "AllTraffic"
    echo_prompt: bool = False
    prefix_cache: bool = False
    context_tokens: int | None = None
    unary_cap_s: float = 60.0
    stream_cap_s: float = 480.0

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            if hasattr(self, name) and not (name == "context_tokens" and self.context_tokens is None):
                kind(f"{self.name}.{name}", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed(Profile):
    """Every request alike, whatever the load: first token after `ttft_s`, then one every `itl_s`."""

    ttft_s: float = 0.1
    itl_s: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching(Profile):
    """A server that batches continuously: milliseconds to prefill p tokens are `prefill_ms`·p + `prefill_ms2`·p²,
    to decode one token for each of b sequences `step_ms` + `sequence_ms`·b."""

    prefill_ms: float
    prefill_ms2: float
    step_ms: float
    sequence_ms: float
    prefill_limit_tokens: int = 4096
    kv_limit_tokens: int = 90_000
    waiting_ratio: float = 1.2
    steps_before_prefill: int = 20

    def prefill_s(self, prompt_tokens: int) -> float:
        """Seconds to read one prompt."""
        return (self.prefill_ms * prompt_tokens + self.prefill_ms2 * prompt_tokens**2) / 1e3

    def step_s(self, sequences: int) -> float:
        """Seconds to make one token for each of `sequences`."""
        return (self.step_ms + self.sequence_ms * sequences) / 1e3


def _number(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"wrong value {value!r}", key=key, allowed="a number, at least 0")


def _count(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"wrong value {value!r}", key=key, allowed="a whole number, at least 1")


def _flag(key: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"wrong value {value!r}", key=key, allowed="true or false")


def _dialect(key: str, value: Any) -> None:
    if value not in DIALECTS:
        raise InputError(f"wrong value {value!r}", key=key, allowed=", ".join(DIALECTS))


_NUMBERS = ("jitter", "unary_cap_s", "stream_cap_s", "ttft_s", "itl_s", "waiting_ratio")
_MILLISECONDS = ("prefill_ms", "prefill_ms2", "step_ms", "sequence_ms")
_COUNTS = ("tokens", "tokens_per_chunk", "context_tokens", "prefill_limit_tokens", "kv_limit_tokens")
_KINDS: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys((*_NUMBERS, *_MILLISECONDS), _number),
    **dict.fromkeys((*_COUNTS, "steps_before_prefill"), _count),
    **dict.fromkeys(("echo_prompt", "prefix_cache"), _flag),
    "dialect": _dialect,
}


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Batching(
            name="llama2-70b-g5-tgi",
            tokens=26,
            jitter=0.02,
            context_tokens=4096,
            prefill_ms=0.260,
            prefill_ms2=6.14e-4,
            step_ms=100.9,
            sequence_ms=11.69,
        ),
        Batching(
            name="llama2-70b-p4d-tgi",
            tokens=26,
            jitter=0.02,
            context_tokens=4096,
            prefill_ms=0.195,
            prefill_ms2=5.17e-5,
            step_ms=36.1,
            sequence_ms=5.92,
        ),
        Fixed(name="fixed", tokens=32),
    )
}


def profile(name: str, **overrides: Any) -> Profile:
    """The profile of that name with some values replaced; an unknown name or key is an InputError."""
    if name not in PROFILES:
        raise InputError(f"unknown profile {name}", key="profile", allowed=", ".join(PROFILES))
    base = PROFILES[name]
    allowed = set(base.__dataclass_fields__) - {"name"}
    if unknown := set(overrides) - allowed:
        raise InputError("unknown key", key=f"{name}.{min(unknown)}", allowed=", ".join(sorted(allowed)))
    return replace(base, **overrides)
