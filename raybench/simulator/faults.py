"""Failures of the service by rate, drawn from one seeded stream: the same seed fails the same requests."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from raybench.errors import InputError


class Fault(StrEnum):
    """What can go wrong with one request; the last five strike after the reply has begun, where it streams."""

    THROTTLE = "throttle"
    MODEL_ERROR = "model_error"
    UNAVAILABLE = "unavailable"
    STREAM_ERROR = "stream_error"
    STREAM_FAILURE = "stream_failure"
    CUT = "cut"
    TRUNCATE = "truncate"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Faults:
    """The share of requests that meets each fault, in [0, 1] and at most 1 together; `split` is not a failure.

    throttle: 400 with an empty message. model_error: 424. unavailable: 503. stream_error: a ModelStreamError frame
    (424 where nothing streams). stream_failure: an InternalStreamFailure frame (500 where nothing streams). cut: the
    connection closes inside the reply. truncate: a clean end without the terminal record. hang: silence after the
    first token, until the cap. `script` names the faults of the first requests one by one, None for none.
    `split`: the share of streamed records cut across parts, or held back to share the next one's.
    """

    throttle: float = 0.0
    model_error: float = 0.0
    unavailable: float = 0.0
    stream_error: float = 0.0
    stream_failure: float = 0.0
    cut: float = 0.0
    truncate: float = 0.0
    hang: float = 0.0
    split: float = 0.0
    script: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        rates = [self.rate(fault) for fault in Fault]
        if not all(0 <= rate <= 1 for rate in (*rates, self.split)) or sum(rates) > 1 + 1e-9:
            raise InputError("rates must lie in [0, 1] and sum to at most 1", key="faults")
        if unknown := [name for name in self.script if name is not None and name not in set(Fault)]:
            raise InputError(f"no such fault: {unknown[0]}", key="faults.script", allowed=", ".join(Fault))

    def rate(self, fault: Fault) -> float:
        """The share of requests that meets `fault`."""
        share: float = getattr(self, fault.value)
        return share

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Faults":
        """From plain JSON values; an unknown name is an InputError."""
        if unknown := set(values) - set(cls.__dataclass_fields__):
            allowed = ", ".join(cls.__dataclass_fields__)
            raise InputError("unknown fault", key=f"faults.{min(unknown)}", allowed=allowed)
        return cls(**{**values, "script": tuple(values.get("script", ()))})


class Fate:
    """One seeded stream of fates, one per request in order of arrival."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._random = Random(f"faults-{seed}")
        self._count = 0

    def draw(self) -> tuple[Fault | None, float]:
        """What befalls the next request, and at which fraction of its reply, in [0, 1)."""
        place, where = self._random.random(), self._random.random()
        index, self._count = self._count, self._count + 1
        if index < len(self._faults.script):
            name = self._faults.script[index]
            return (None if name is None else Fault(name)), where
        for fault in Fault:
            place -= self._faults.rate(fault)
            if place < 0:
                return fault, where
        return None, where
