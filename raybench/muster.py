"""The load actors of a run: their endpoints checked, raised on Ray, measured, and as many as the load takes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raybench import selftest as selftests
from raybench import selftest_text, sizing, targets
from raybench.client.target import Target
from raybench.cluster import environment
from raybench.cluster.actor import preflight
from raybench.cluster.monitor import Screen
from raybench.cluster.part import Post
from raybench.config import Config
from raybench.counting import Source
from raybench.errors import InfrastructureError
from raybench.payloads.pool import Pool
from raybench.plan import Plan
from raybench.simulator.process import Simulated
from raybench.specs import Experiment

if TYPE_CHECKING:
    from raybench.cluster.fleet import Crew

ROUNDS = 3
"""How often actors may be added: each time they share what they run on with more."""


Measure = Callable[["Sequence[Crew]", Plan], selftests.Selftest]
"""Has the load actors of some crews measure themselves at the load of a plan."""


class Muster:
    """Raises the crews of one run, one for each experiment in their order; run.json, `manifest`, hears who stands."""

    def __init__(
        self,
        config: Config,
        matrix: Plan,
        pools: Mapping[str, Pool],
        run_dir: Path,
        manifest: dict[str, Any],
        screen: Screen,
    ) -> None:
        self.config, self.plan, self.pools, self.run_dir, self.screen = config, matrix, pools, run_dir, screen
        self.manifest = manifest
        self._noted = {experiment["name"]: experiment for experiment in manifest["experiments"]}
        self._aims: dict[str, Target] = {}
        self._paces: dict[str, sizing.Pace | None] = {}
        self._here = False

    def check(self, simulator: Simulated | None) -> None:
        """Finds every endpoint, a simulated one at `simulator`, and has it answer once; EndpointError, InputError."""
        self._here = simulator is not None
        self.screen.say("checking the endpoints")
        prompt = self.pools[self.config.payloads[0].name].prompts[0]
        for one in self.config.experiments:
            self._aims[one.name] = aim = targets.target(self.config, one, simulator)
            self._paces[one.name] = sizing.pace(preflight(aim, one.parameters, prompt))

    def join(self, address: str, stack: ExitStack) -> None:
        """Starts or joins Ray until `stack` closes; ClusterError if it cannot."""
        self.screen.say(environment.arrival(address))
        from raybench.cluster import fleet

        stack.enter_context(fleet.cluster(address))

    def raised(self) -> "list[Crew]":
        """Has every actor standing and armed, once the endpoints are checked and Ray is there."""
        return self._raise({one.name: self._least(one.name) for one in self.config.experiments})

    def _least(self, experiment: str) -> int:
        """As many actors as the config says; without a word of it one, or as many as the run had before."""
        stood = 0 if self._is_given else len(self._noted[experiment]["actors"])
        return max(self.config.fleet.actors, stood)

    @property
    def _is_given(self) -> bool:
        return "actors" in self.config.fleet.model_fields_set

    def _raise(self, actors: Mapping[str, int]) -> "list[Crew]":
        from raybench.cluster import fleet

        crews, turn = list[fleet.Crew](), 0
        for one in self.config.experiments:
            crews.append(fleet.Crew(self._posts(one, actors[one.name]), turn, here=self._here))
            turn += actors[one.name]
        for crew, one in zip(crews, self.config.experiments, strict=True):
            crew.gather()
            crew.arm({name: pool.prompts for name, pool in self.pools.items()})
            self._noted[one.name]["actors"] = crew.about
        return crews

    def _posts(self, experiment: Experiment, actors: int) -> list[Post]:
        return [
            Post(
                experiment=experiment.name,
                index=index,
                actors=actors,
                target=self._aims[experiment.name],
                parameters=experiment.parameters,
                run_dir=self.run_dir,
                keep_text=self.config.keep_text,
                sitting=len(self.manifest["resumed_utc"]),
                tokenizers={
                    name: pool.counter.count_completion
                    for name, pool in self.pools.items()
                    if pool.counter.source is Source.TOKENIZER
                },
            )
            for index in range(actors)
        ]

    def enough(self, crews: "list[Crew]", measure: Measure = selftests.before) -> "list[Crew]":
        """Lets the actors measure their own error; where the load is too big, adds some if the config lets us.

        ClusterError where it does not, or where cores are missing. Where `measure` fails, the run goes on as it is.
        """
        for left in reversed(range(1 + ROUNDS)):
            actors = {crew.posts[0].experiment: len(crew.posts) for crew in crews}
            found = self._selftest(crews, measure)
            lacking = sizing.short(self.plan, self._paces, found, actors) if found else []
            if not lacking:
                break
            crews = self._more(crews, lacking, actors, may=left > 0 and not self._is_given)
        return crews

    def _more(
        self, crews: "Sequence[Crew]", lacking: Sequence[sizing.Short], actors: Mapping[str, int], *, may: bool
    ) -> "list[Crew]":
        from raybench.cluster import fleet

        wanted, cores = sizing.wanted(lacking, actors), fleet.load_cores(here=self._here)
        if not may or sum(wanted.values()) > cores:
            raise sizing.too_few(self.config, lacking[0], sum(wanted.values()), cores)
        for crew in crews:
            crew.kill()
        self.screen.say(f"too much for {sum(actors.values())} load actors: raising {sum(wanted.values())}")
        return self._raise(wanted)

    def _selftest(self, crews: "Sequence[Crew]", measure: Measure) -> selftests.Selftest | None:
        """What the load actors' own stamps are worth; None where they cannot tell."""
        self.screen.say("selftest: what the load actors' own stamps are worth")
        try:
            found = measure(crews, self.plan)
        except InfrastructureError as error:
            self.screen.say(f"no selftest: {error}")
            return None
        selftests.note(found, self.manifest)
        self.screen.say(selftest_text.line(found))
        return found
