"""What one actor plays of one trial: its slots or arrivals, its prompts, its rows; on any loop and any clock."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raybench.client import dialects
from raybench.client.http import Reply
from raybench.client.sagemaker import SageMakerClient
from raybench.client.target import Target
from raybench.clock import NS_PER_S, Clock
from raybench.load.arrivals import Closed, stripe
from raybench.load.arrivals import share as part_of
from raybench.load.attack import Attack, Identity, Span
from raybench.load.schedule import Offsets
from raybench.load.search import Search
from raybench.payloads.pool import in_order, order
from raybench.plan import Trial
from raybench.rows import MAX_TOKENS, Prompt, Request, Row, max_tokens

OPEN_CONNECTIONS = 64
"""Opened ahead for an open load that has no bound of its own."""

LAG_PROBE_S = 0.02

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

    def prepare(self) -> None:
        """Draws the arrivals, so that none is drawn while the clock runs."""
        if not isinstance(self.trial.load, Closed):
            _arrivals(self.trial, self.post.index, self.post.actors)

    def planned(self) -> tuple[Offsets, npt.NDArray[np.bool_]]:
        """An open load's instants since T0 up to the end of what is measured, and which of them are measured."""
        arrivals_ns, span = _arrivals(self.trial, self.post.index, self.post.actors), self._span()
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
    ) -> Attack[Reply]:
        """The load loop, ready for `play`."""
        post, trial = self.post, self.trial
        if trial.in_order:
            turns = in_order(len(pool), post.index, post.actors)
        else:
            turns = order(len(pool), self.seed, trial.cell, post.index, post.actors)
        requests = (pool[turn] for turn in turns)
        identity = self._identity(host)
        return Attack(client, requests, self._span(), identity, t0_ns=t0_ns, clock=clock, write=write)

    async def play(self, attack: Attack[Reply]) -> None:
        """Runs the trial's load through the loop to its end."""
        load = self.trial.load
        if isinstance(load, Closed):
            await attack.closed(self._of(load.concurrency), load.think_time_ns)
        else:
            most = self.trial.max_in_flight
            arrivals = _arrivals(self.trial, self.post.index, self.post.actors)
            await attack.open(arrivals, None if most is None else self._of(most))

    def _of(self, total: int) -> int:
        return part_of(total, self.post.index, self.post.actors)

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


@lru_cache(maxsize=2)
def _arrivals(trial: Trial, index: int, actors: int) -> Offsets:
    """An actor's arrivals: the trial's own, then as many as it may take to hold the load until it ends."""
    load = trial.load
    assert not isinstance(load, Closed | Search)
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


def request(target: Target, parameters: Mapping[str, Any], prompt: Prompt) -> Request:
    """A prompt as the body that the endpoint's dialect wants."""
    if prompt.max_tokens is not None and target.dialect != "embeddings":
        name = next((name for name in MAX_TOKENS if name in parameters), MAX_TOKENS[0])
        parameters = {**parameters, name: prompt.max_tokens}
    body = dialects.body(target.dialect, prompt.text, parameters, target.streams)
    digest = hashlib.blake2b(body, digest_size=8).hexdigest()
    return Request(body, digest, prompt, max_tokens(parameters))


async def probe_lag(lag_ns: list[int], clock: Clock) -> None:
    """Notes how much later than asked the loop wakes a sleeper: what a stamp could be late by."""
    while True:
        due_ns = clock() + round(LAG_PROBE_S * NS_PER_S)
        await asyncio.sleep(LAG_PROBE_S)
        lag_ns.append(max(0, clock() - due_ns))
