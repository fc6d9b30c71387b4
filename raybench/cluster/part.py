"""What one actor plays of one trial: its slots or arrivals, its prompts, its rows; on any loop and any clock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raybench.client.http import Reply
from raybench.client.sagemaker import SageMakerClient
from raybench.client.target import Target
from raybench.clock import NS_PER_S, Clock
from raybench.load.arrivals import Closed, stripe
from raybench.load.arrivals import share as part_of
from raybench.load.attack import Attack, Identity, Span, alone
from raybench.load.schedule import Offsets
from raybench.load.search import Search
from raybench.payloads.pool import in_order, order
from raybench.plan import Trial
from raybench.rows import Request, Row

OPEN_CONNECTIONS = 64
"""Opened ahead for an open load that has no bound of its own."""

TAIL_NS = 600 * NS_PER_S
"""How much longer than the measuring window an open load goes on at most, while measured requests are in flight."""


@dataclass(frozen=True, slots=True)
class Post:
    """Where an actor stands: its endpoint, how to speak to it, and which of the endpoint's `actors` it is.

    `epoch` counts the actors that were lost at this post before; `tokenizers` count the completions of a payload.
    `sitting` counts how often the run was resumed.
    """

    experiment: str
    index: int
    actors: int
    target: Target
    parameters: dict[str, Any]
    run_dir: Path
    keep_text: bool = False
    epoch: int = 0
    tokenizers: Mapping[str, Callable[[str], int]] = field(default_factory=dict)
    sitting: int = 0

    @property
    def name(self) -> str:
        return f"{self.experiment}-{self.index}" + (f".{self.epoch}" if self.epoch else "")


@dataclass(frozen=True, slots=True)
class Part:
    """The part of `trial` that falls to `post`; `seed` draws the prompts."""

    trial: Trial
    post: Post
    seed: int

    @property
    def connections(self) -> int:
        """How many to open before T0."""
        return self._of(self.trial.max_in_flight or OPEN_CONNECTIONS)

    @property
    def players(self) -> int:
        """How many actors take part, the first ones: an actor without a place in flight would send nothing."""
        return min(self.post.actors, self.trial.max_in_flight or self.post.actors)

    def prepare(self) -> None:
        """Draws the arrivals, so that none is drawn while the clock runs."""
        if not isinstance(self.trial.load, Closed):
            _arrivals(self.trial, self.post.index, self.players)

    def planned(self) -> tuple[Offsets, npt.NDArray[np.bool_]]:
        """An open load's instants since T0 up to the end of what is measured, and which of them are measured."""
        arrivals_ns, span = _arrivals(self.trial, self.post.index, self.players), self._span()
        measured = arrivals_ns >= span.warmup_ns
        if span.duration_ns is not None:
            end = int(np.searchsorted(arrivals_ns, span.warmup_ns + span.duration_ns))
        else:
            end = int(np.count_nonzero(~measured)) + (span.requests or 0)
        return arrivals_ns[:end], measured[:end]

    def attack(
        self,
        client: SageMakerClient,
        pool: Sequence[Request],
        host: str,
        *,
        t0_ns: int,
        clock: Clock,
        write: Callable[[Row], None],
        over: Callable[[], bool] = alone,
    ) -> Attack[Reply]:
        """The load loop, ready for `play`."""
        post, trial = self.post, self.trial
        if trial.in_order:
            turns = in_order(len(pool), post.index, self.players)
        else:
            turns = order(len(pool), self.seed, trial.lot, post.index, post.actors)
        requests = (pool[turn] for turn in turns)
        identity = self._identity(host)
        return Attack(client, requests, self._span(), identity, t0_ns=t0_ns, clock=clock, write=write, over=over)

    async def play(self, attack: Attack[Reply]) -> None:
        """Runs the trial's load through the loop to its end."""
        load = self.trial.load
        if isinstance(load, Closed):
            await attack.closed(self._of(load.concurrency), load.think_time_ns)
        else:
            most = self.trial.max_in_flight
            arrivals = _arrivals(self.trial, self.post.index, self.players)
            await attack.open(arrivals, None if most is None else self._of(most))

    def _of(self, total: int) -> int:
        return part_of(total, self.post.index, self.players) if self.post.index < self.players else 0

    def _span(self) -> Span:
        """When this actor measures; a number of requests is dealt out as arrivals, or slots, are."""
        trial, load = self.trial, self.trial.load
        duration_ns = None if trial.duration_s is None else round(trial.duration_s * NS_PER_S)
        if trial.requests is None:
            requests = None
        elif isinstance(load, Closed):
            slots = range(self.post.index, load.concurrency, self.post.actors)
            requests = sum(part_of(trial.requests, slot, load.concurrency) for slot in slots)
        else:
            requests = self._of(trial.requests)
        return Span(round(trial.warmup_s * NS_PER_S), duration_ns, requests)

    def _identity(self, host: str) -> Identity:
        trial, post = self.trial, self.post
        return Identity(
            trial_id=trial.trial_id,
            repeat=trial.repeat,
            experiment=trial.experiment,
            payload=trial.payload,
            load=trial.load.label,
            actor=post.name,
            host=host,
            index=post.index,
            actors=post.actors,
            keep_text=post.keep_text,
        )


class Together:
    """The actors of one trial in one process: each holds its load until all have measured what they measure."""

    def __init__(self, players: int) -> None:
        self._measuring = set(range(players))

    def over(self, index: int) -> Callable[[], bool]:
        """What the attack of one asks when it has measured."""

        def ask() -> bool:
            self._measuring.discard(index)
            return not self._measuring

        return ask

    async def play(self, part: Part, attack: Attack[Reply]) -> None:
        """Plays one's part; it may end without having asked, as a trace does."""
        await part.play(attack)
        self._measuring.discard(part.post.index)


@lru_cache(maxsize=2)
def _arrivals(trial: Trial, index: int, actors: int) -> Offsets:
    """An actor's arrivals: the trial's own, then as many as it may take to hold the load until it ends."""
    load = trial.load
    assert not isinstance(load, Closed | Search)
    if index >= actors:
        return np.empty(0, np.int64)
    return stripe(load.offsets_ns(trial.seed, duration_ns=ends_ns(trial) + TAIL_NS), index, actors)


def ends_ns(trial: Trial) -> int:
    """When a trial of an open load ends: after its duration, or with the last request that counts."""
    load = trial.load
    assert not isinstance(load, Closed | Search)
    warmup_ns = round(trial.warmup_s * NS_PER_S)
    if trial.duration_s is not None:
        return warmup_ns + round(trial.duration_s * NS_PER_S)
    before = len(load.offsets_ns(trial.seed, duration_ns=warmup_ns))
    return int(load.offsets_ns(trial.seed, count=before + (trial.requests or 0))[-1])
