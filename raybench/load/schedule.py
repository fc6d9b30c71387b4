"""Schedules from rates and gaps: integers that do not drift, cut to a duration or a count."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice

import numpy as np
import numpy.typing as npt

from raybench.clock import NS_PER_S

Offsets = npt.NDArray[np.int64]
"""Sorted instants, integer nanoseconds since T0."""

BLOCK = 4096
"""How many arrivals are drawn at a time; a schedule does not depend on where it is cut."""

Leg = tuple[int | None, Fraction, Fraction]
"""A stretch of (nanoseconds, first rate, last rate) with the rate on a straight line; the last has no end."""


def even(legs: Iterable[Leg]) -> Iterator[int]:
    """For k = 0, 1, … the least whole nanosecond t at which the integral of the rate has reached k.

    Along a leg from rate s to rate e over T, k' more requests are due at t when (e-s)t² + 2Tst >= 2T·k' (in units
    that make all of these integers): solved with an integer square root, so no arrival is off by even one.
    """
    k = 0
    begin_ns = 0
    due = Fraction(0)
    for length_ns, first, last in legs:
        if length_ns is None:
            length_ns, last, more = 1, first, Fraction(0)
            end: float = math.inf
        else:
            more = (first + last) * length_ns / (2 * NS_PER_S)
            end = math.ceil(due + more)
        unit = math.lcm(first.denominator, last.denominator)
        curve = int((last - first) * unit)
        slope = int(first * unit) * length_ns
        whole = 2 * length_ns * unit * NS_PER_S
        begun, per = due.numerator, due.denominator
        while k < end:
            yield begin_ns + _first_ns(curve, slope, -((begun - k * per) * whole // per))
            k += 1
        begin_ns += length_ns
        due += more


def _first_ns(curve: int, slope: int, target: int) -> int:
    """The least t >= 0 with curve·t² + 2·slope·t >= target."""
    if target <= 0:
        return 0
    if curve == 0:
        return -(-target // (2 * slope))
    square = slope * slope + curve * target
    root = math.isqrt(square)
    if curve > 0:
        return -(-(root + (root * root < square) - slope) // curve)
    return -(-(slope - root) // -curve)


def summed(gaps: Iterable[npt.NDArray[np.float64]]) -> Iterator[Offsets]:
    """Running sums of the gaps, each gap rounded to a nanosecond first."""
    last = 0
    for block in gaps:
        sums: Offsets = last + np.cumsum(np.rint(block).astype(np.int64))
        yield sums
        last = int(sums[-1])


def blocks(instants: Iterator[int]) -> Iterator[Offsets]:
    """Endless instants as arrays."""
    while block := list(islice(instants, BLOCK)):
        yield np.array(block, dtype=np.int64)


def cut(parts: Iterable[Offsets], duration_ns: int | None, count: int | None) -> Offsets:
    """The instants before `duration_ns`, at most `count` of them."""
    if duration_ns is None and count is None:
        raise ValueError("an endless schedule; give duration_ns, count or both")
    taken: list[Offsets] = [np.empty(0, dtype=np.int64)]
    left = count
    for block in parts:
        end = len(block) if duration_ns is None else int(np.searchsorted(block, duration_ns))
        end = end if left is None else min(end, left)
        taken.append(block[:end])
        left = None if left is None else left - end
        if end < len(block) or left == 0:
            break
    return np.concatenate(taken)
