"""The config file: what is measured, with what, how it arrives, and what would be good enough."""

import re
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, model_validator

from raybench.analysis.columns import ALIASES, QUANTILES, RATES, SPREADS
from raybench.analysis.spoken import data_set
from raybench.client.target import Timeouts
from raybench.datasets import PayloadSpec, TraceRequests
from raybench.errors import InputError
from raybench.loads import LoadSpec, ReplayLoad, SearchLoad
from raybench.specs import Experiment
from raybench.strict import Model, Name, Seconds, Some, explain, nearest, seconds, shown, wrong
from raybench.yamlfile import Document, dotted, read

REGIONS = (
    "af-south-1", "ap-east-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2",
    "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-7",
    "ca-central-1", "ca-west-1", "cn-north-1", "cn-northwest-1", "eu-central-1", "eu-central-2", "eu-north-1",
    "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "il-central-1", "me-central-1",
    "me-south-1", "mx-central-1", "sa-east-1", "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1",
    "us-west-1", "us-west-2",
)  # fmt: skip
"""Regions to suggest; one that is not here is allowed if it is built like one."""

TIMES = tuple(
    f"{metric}_{statistic}"
    for metric, spread in SPREADS.items()
    if spread.unit == "s"
    for statistic in ("mean", *QUANTILES)
)
"""Criteria in seconds."""

STREAMED = tuple(metric for metric, spread in SPREADS.items() if spread.streamed)
"""Metrics that need a reply in pieces."""

COSTS = (*ALIASES, *(metric for metric, (unit, _) in RATES.items() if unit == "USD"))
"""Criteria in USD."""

CRITERIA = (*TIMES, *COSTS, "error_rate")
"""Every metric that may have a largest allowed value."""

_PATIENCE = Timeouts()

_REGION = re.compile(
    r"[a-z]{2,4}(-[a-z]{2,4})?-(north|south|east|west|central|northeast|northwest|southeast|southwest)-[1-9]"
)


def _region(value: str) -> str:
    if not _REGION.fullmatch(value):
        raise wrong(f"{shown(value)} is not a region", nearest(value, REGIONS))
    return value


class Criteria(Model):
    """The largest allowed value of each metric that matters: seconds, USD, or a fraction for error_rate.

    In the file the metrics stand beside `enforce`, times as durations: `{latency_p95: 5s, error_rate: 0}`.
    """

    limits: dict[str, float] = Field(default_factory=dict)
    enforce: bool = False

    @model_validator(mode="wrap")
    @classmethod
    def _from_file(cls, value: Any, build: Any) -> "Criteria":
        if not isinstance(value, dict):
            return cast(Criteria, build(value))
        limits = {key: _limit(key, limit) for key, limit in value.items() if key != "enforce"}
        return cast(Criteria, build({"limits": limits, **{key: value[key] for key in ("enforce",) if key in value}}))


def _limit(metric: str, value: Any) -> float:
    """The limit as a number; what it may be depends on the metric."""
    if metric not in CRITERIA:
        raise wrong("unknown metric", nearest(metric, CRITERIA), metric)
    if metric in TIMES:
        return seconds(value, metric)
    most = 1.0 if metric == "error_rate" else float("inf")
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise wrong(
            f"{shown(value)} is not allowed", "a fraction from 0 to 1" if most == 1 else "an amount in USD", metric
        )
    return float(value)


class Report(Model):
    """What the report looks at first."""

    payload: str | None = None


class Fleet(Model):
    """How many processes send to each endpoint."""

    actors: int = Field(default=1, ge=1, le=1000)


class TimeoutSpec(Model):
    """How long a request may take; see the client's Timeouts, which has the same names."""

    connect_s: Seconds = Field(default=_PATIENCE.connect_s, alias="connect", gt=0, le=600)
    idle_s: Seconds = Field(default=_PATIENCE.idle_s, alias="idle", gt=0, le=3600)
    invoke_s: Seconds = Field(default=_PATIENCE.invoke_s, alias="invoke", gt=0, le=7200)
    stream_s: Seconds = Field(default=_PATIENCE.stream_s, alias="stream", gt=0, le=7200)


class Config(Model):
    """One run: every experiment × payload × load × repeat."""

    name: Name
    region: Annotated[str, AfterValidator(_region)] | None = None
    seed: int = Field(default=0, ge=0)
    model: str | None = Field(default=None, min_length=1, max_length=100)
    keep_text: bool = False
    experiments: Annotated[tuple[Experiment, ...], Some]
    payloads: Annotated[tuple[PayloadSpec, ...], Some]
    loads: Annotated[tuple[Annotated[LoadSpec, Field(discriminator="kind")], ...], Some]
    repeats: int = Field(default=1, ge=1, le=1000)
    criteria: Criteria = Criteria()
    report: Report = Report()
    fleet: Fleet = Fleet()
    timeouts: TimeoutSpec = TimeoutSpec()
    _document: Document | None = PrivateAttr(default=None)

    @property
    def text(self) -> str:
        """The file as written; empty for a config that was not read from one."""
        return self._document.text if self._document else ""

    @property
    def file(self) -> Path | None:
        """Where the config was read from."""
        return self._document.path if self._document else None

    def wrong(self, problem: str, allowed: str, *key: str | int) -> InputError:
        """An InputError about the value at `key`, with its line if it has one."""
        where = self._document.where(key) if self._document else ""
        return InputError(problem, where=where, key=dotted(key), allowed=allowed)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for part in ("experiments", "payloads"):
            seen: dict[str, int] = {}
            for index, item in enumerate(getattr(self, part)):
                said = data_set(item.name).casefold() if part == "payloads" else item.name.casefold()
                if said in seen:
                    raise wrong(f"'{item.name}' is there already", "names that differ", part, index, "name")
                seen[said] = index
        payloads = [payload.name for payload in self.payloads]
        experiments = [experiment.name for experiment in self.experiments]
        if self.report.payload not in (None, *payloads):
            raise wrong("no such payload", nearest(self.report.payload, payloads), "report", "payload")
        for index, load in enumerate(self.loads):
            for part, names in (("payloads", payloads), ("experiments", experiments)):
                for name in getattr(load, part) or ():
                    if name not in names:
                        at = ("loads", index, part)
                        raise wrong(f"{shown(name)} is none of the {part}", nearest(name, names), *at)
        return self

    @model_validator(mode="after")
    def _replays_send_what_the_trace_sent(self) -> Self:
        for place, load in enumerate(self.loads):
            for payload in self.payloads:
                if load.payloads is not None and payload.name not in load.payloads:
                    continue
                asked = payload.dataset
                if not isinstance(load, ReplayLoad) or not isinstance(asked, TraceRequests):
                    continue
                if (asked.trace, asked.slice_s) != (load.trace, load.slice_s):
                    problem = f"replays another trace or slice than '{payload.name}' has the requests of"
                    raise wrong(problem, "the same trace and slice, or payloads: […] for each", "loads", place)
        return self

    @model_validator(mode="after")
    def _criteria_can_be_known(self) -> Self:
        for metric in self.criteria.limits:
            for experiment in self.experiments:
                if metric in COSTS and experiment.price_per_hour is None:
                    problem = f"'{experiment.name}' has no price_per_hour, so its cost cannot be known"
                    raise wrong(problem, "a price for every experiment, or no criterion on cost", "criteria", metric)
                if metric.startswith(STREAMED) and not experiment.streams:
                    problem = f"'{experiment.name}' answers in one piece (route: {experiment.route})"
                    raise wrong(problem, "route: stream or openai, or no such criterion", "criteria", metric)
        return self

    @model_validator(mode="after")
    def _searches_can_end(self) -> Self:
        for place, load in enumerate(self.loads):
            if not isinstance(load, SearchLoad):
                continue
            for experiment in self.experiments:
                if load.experiments and experiment.name not in load.experiments:
                    continue
                if load.max_usd is not None and experiment.price_per_hour is None:
                    problem = f"'{experiment.name}' has no price_per_hour, so nothing tells when so much is spent"
                    raise wrong(problem, "a price for it, or max_minutes alone", "loads", place, "max_usd")
                if load.metric.startswith(STREAMED) and not experiment.streams:
                    problem = f"'{experiment.name}' answers in one piece (route: {experiment.route})"
                    raise wrong(problem, "route: stream or openai, or metric: latency_p99", "loads", place, "metric")
        return self


def load_config(path: str | Path, folder: Path | None = None) -> Config:
    """The config in the file at `path`; InputError says what is wrong with it, and on which line.

    Paths in it start from `folder`, the file's own if not given.
    """
    document = read(Path(path))
    try:
        config = Config.model_validate(document.value, context={"folder": folder or Path(path).parent})
    except ValidationError as error:
        raise explain(error, document) from None
    config._document = document
    return config
