"""One trial in virtual time: what all of its actors do, against a simulated endpoint, on a network in memory."""

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from raybench import targets
from raybench.client.bodies import request
from raybench.client.http import Reply
from raybench.client.sagemaker import SageMakerClient
from raybench.clock import Clock
from raybench.cluster.part import Part, Post, Together
from raybench.cluster.search import Seen
from raybench.config import Config
from raybench.load.attack import Attack
from raybench.plan import Trial
from raybench.rows import REQUESTS, Prompt, Row, requests_table
from raybench.simulator.auth import Credentials
from raybench.simulator.faults import Faults
from raybench.simulator.process import Simulated
from raybench.simulator.server import EndpointSpec, serve
from raybench.specs import Experiment, SimulatedEndpoint
from raybench.virtual import VirtualNetwork, run_virtually

LATENCY_S, JITTER_S = 0.0001, 0.0001
"""The network of a rehearsal: that of one machine, and enough disorder that slots do not march in step."""

SEEN_EVERY_S = 0.5
"""How often somebody who watches is given rows, as the load actors do."""

_KEYS = Credentials("AKIDREHEARSAL", "rehearsal-secret", "us-west-2")


class Practice:
    """Plays trials of a simulated experiment, each on a network of its own with an endpoint that has just started."""

    def __init__(self, config: Config, experiment: Experiment, pool: Sequence[Prompt]) -> None:
        self.config, self.experiment, self.pool = config, experiment, pool
        self._network: VirtualNetwork | None = None
        self._attacks: list[Attack[Reply]] = []

    def clock(self) -> int:
        """The instant of the trial that plays, or that was played last."""
        return self._network.now_ns() if self._network else 0

    def stop(self) -> None:
        """Has the trial that plays plan nothing more; `play` returns once those in flight have ended."""
        for attack in self._attacks:
            attack.stop()

    def play(self, trial: Trial, seen: Seen | None = None, most_s: float = math.inf) -> pa.Table:
        """The rows of a trial (REQUESTS), stopped after `most_s`; `seen`, if given, gets them as they come."""
        self._network = network = VirtualNetwork(LATENCY_S, JITTER_S, trial.seed)
        rows: list[Row] = []
        run_virtually(lambda clock: self._main(trial, clock, rows, seen, most_s), network)
        return requests_table(rows)

    async def _main(self, trial: Trial, clock: Clock, rows: list[Row], seen: Seen | None, most_s: float) -> None:
        config, experiment = self.config, self.experiment
        assert isinstance(experiment.endpoint, SimulatedEndpoint)
        spec = EndpointSpec(experiment.endpoint.profile, Faults.of(experiment.endpoint.faults), config.seed)
        running = await serve({experiment.name: spec}, credentials=_KEYS, clock=clock, grain_s=0)
        reached = Simulated(running.url, _KEYS.region, _KEYS.access_key, _KEYS.secret_key)
        target = targets.target(config, experiment, reached)
        bodies = [request(target, experiment.parameters, prompt) for prompt in self.pool]
        actors = config.fleet.actors
        posts = [Post(experiment.name, i, actors, target, experiment.parameters, Path()) for i in range(actors)]
        parts = [Part(trial, post, config.seed) for post in posts]
        clients = [SageMakerClient(target, clock=clock) for _ in parts]
        for client, part in zip(clients, parts, strict=True):
            await client.open(part.connections)
        together, now_ns = Together(parts[0].players), clock()
        self._attacks = [
            part.attack(
                *(client, bodies, "virtual"),
                t0_ns=now_ns,
                clock=clock,
                write=rows.append,
                over=together.over(part.post.index),
            )
            for client, part in zip(clients, parts, strict=True)
        ]
        if most_s < math.inf:
            asyncio.get_running_loop().call_later(most_s, self.stop)
        async with asyncio.TaskGroup() as beside:
            telling = beside.create_task(_tell(rows, seen)) if seen else None
            async with asyncio.TaskGroup() as group:
                for part, attack in zip(parts, self._attacks, strict=True):
                    group.create_task(together.play(part, attack))
            if telling:
                telling.cancel()
        for client in clients:
            await client.close()
        await running.close()


async def _tell(rows: Sequence[Row], seen: Seen) -> None:
    """Gives the rows that have come since the last time, over and over."""
    given = 0
    seen(REQUESTS.empty_table())
    while True:
        await asyncio.sleep(SEEN_EVERY_S)
        given, batch = len(rows), rows[given:]
        seen(requests_table(batch))
