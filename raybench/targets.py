"""Where each experiment's requests go: a real endpoint by botocore's rules, or a simulated one of our own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raybench.client.credentials import chain, surroundings
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target, Timeouts
from raybench.config import Config
from raybench.deploying import found
from raybench.simulator.process import Simulated, simulated
from raybench.specs import DeployedEndpoint, ExistingEndpoint, Experiment, SimulatedEndpoint


@contextmanager
def simulator(config: Config, truth: Path, resumed: int = 0) -> Iterator[Simulated | None]:
    """Runs a simulator with all simulated endpoints of a config, its truth log at `truth`; None if there are none.

    A run that was `resumed` so many times gets other request ids than before.
    """
    endpoints: dict[str, dict[str, Any]] = {
        experiment.name: {
            "profile": experiment.endpoint.simulate,
            "overrides": experiment.endpoint.overrides,
            "faults": experiment.endpoint.faults,
            "seed": config.seed + resumed,
        }
        for experiment in config.experiments
        if isinstance(experiment.endpoint, SimulatedEndpoint)
    }
    if not endpoints:
        yield None
        return
    with simulated(endpoints, truth=truth) as running:
        yield running


def known(config: Config) -> None:
    """InputError if real endpoints are called and there is no region, or nobody to call them as; it calls nothing."""
    if not all(isinstance(experiment.endpoint, SimulatedEndpoint) for experiment in config.experiments):
        surroundings(config.region)
        chain()


def target(config: Config, experiment: Experiment, running: Simulated | None) -> Target:
    """What an experiment's actors call; InputError if no region can be found."""
    endpoint, timeouts = experiment.endpoint, Timeouts(**config.timeouts.model_dump())
    if isinstance(endpoint, SimulatedEndpoint):
        assert running is not None
        return Target(
            url=running.url,
            endpoint=experiment.name,
            region=running.region,
            route=experiment.route,
            dialect=experiment.dialect,
            credentials=Credentials(running.access_key, running.secret_key),
            timeouts=timeouts,
            stream=experiment.streams,
        )
    around = surroundings(config.region)
    if isinstance(endpoint, DeployedEndpoint):
        endpoint = ExistingEndpoint(name=found(config, experiment.name))
    return Target(
        url=endpoint.url or around.url,
        endpoint=endpoint.name,
        region=around.region,
        route=experiment.route,
        dialect=experiment.dialect,
        variant=endpoint.variant,
        inference_component=endpoint.inference_component,
        timeouts=timeouts,
        stream=experiment.streams,
        ca_bundle=around.ca_bundle,
    )
