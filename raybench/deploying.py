"""`deploy`, `teardown` and `gc`: the endpoints that a config asks for, made, billed, ended and found again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal

from raybench.config import Config
from raybench.endpoints.aws import account, client, describe
from raybench.endpoints.bill import bill_usd
from raybench.endpoints.gc import left_behind, out_of_sight
from raybench.endpoints.ledger import KINDS, Entry, default_ledger
from raybench.endpoints.lifecycle import Deployment, Doomed, Life, endpoint_name, utc
from raybench.errors import EndpointError, InterruptedRunError
from raybench.signals import Ear, heard
from raybench.specs import DeployedEndpoint

Say = Callable[[str], None]
LifeIn = Callable[[str | None, Ear], Life]
"""What gives a verb the lifecycle of a region: `life_in`, but tests give their own."""


def deployments(config: Config) -> list[Deployment]:
    """What the config asks to deploy; InputError if that is nothing."""
    wanted = [
        Deployment(
            run=config.name,
            name=endpoint_name(config.name, one.name),
            image=one.endpoint.deploy.image,
            role=one.endpoint.deploy.role,
            instance_type=one.instance_type,
            instances=one.instance_count,
            model=one.endpoint.deploy.model,
            environment=one.endpoint.deploy.environment,
            usd_per_hour=None if one.price_per_hour is None else str(one.price_per_hour),
        )
        for one in config.experiments
        if isinstance(one.endpoint, DeployedEndpoint)
    ]
    if not wanted:
        raise config.wrong("no endpoint to deploy", "endpoint: {deploy: {image: …, role: …}}", "experiments")
    return wanted


def life_in(region: str | None, ear: Ear) -> Life:
    """The lifecycle of endpoints in a region, botocore's own if None, with this user's account and ledger."""
    aws = client(region)
    name = aws.meta.region_name
    return Life(aws, account(name), default_ledger(), pause=ear.pause, check=ear.check)


@contextmanager
def _interruptible(doing: str, left: Callable[[], str]) -> Iterator[Ear]:
    """Lets the first signal end a verb in order and the second at once; InterruptedRunError says what is `left`."""
    with heard(f"stopping: {doing} (again to stop at once)") as ear:
        try:
            yield ear
            ear.check()
        except KeyboardInterrupt:
            ear.close()
            raise InterruptedRunError(f"interrupted; {left()}") from None


def _left(wanted: Sequence[Deployment]) -> str:
    """What the ledger does not know to be gone of these, and how to remove it."""
    names = {one.name for one in wanted}
    open_ = [entry for entry in default_ledger().open().values() if entry.name in names]
    if not open_:
        return f"nothing is left of {', '.join(sorted(names))}"
    told = ", ".join(f"{entry.kind} {entry.name} in {entry.region}" for entry in open_)
    return f"may be left, and an endpoint costs: {told}; `raybench gc --run {wanted[0].run} --yes` removes it"


def deploy(config: Config, life_s: int, say: Say, *, life_in: LifeIn = life_in) -> None:
    """Makes every endpoint of a config, and waits until all serve: all of them, or none; EndpointError.

    A signal is InterruptedRunError once what was made is deleted again; a second one says what may be left.
    """
    wanted = deployments(config)

    def serving(entry: Entry) -> None:
        until = utc(entry.expires_s)
        say(f"{entry.name}: in service; costs until `raybench teardown`; from {until} on, `raybench gc` ends it too")

    with _interruptible("deleting what was made", lambda: _left(wanted)) as ear:
        life = life_in(config.region, ear)
        for one in wanted:
            hourly = None if one.usd_per_hour is None else Decimal(one.usd_per_hour) * one.instances
            price = "price unknown" if hourly is None else f"${hourly:.2f} per hour"
            say(f"{one.name}: deploying {one.instances} × {one.instance_type}, {price}")
        life.deploy(*wanted, life_s=life_s, serving=serving)


def teardown(config: Config, say: Say, *, life_in: LifeIn = life_in) -> None:
    """Deletes every endpoint that a config made, with what belongs to it, and tells the bill; EndpointError.

    A signal ends it with InterruptedRunError, which says what is not known to be gone.
    """
    wanted = deployments(config)
    with _interruptible("what is not deleted yet stays", lambda: _left(wanted)) as ear:
        life = life_in(config.region, ear)
        for one in wanted:
            _refuse_unknown(life, one)

        def gone(each: Doomed, created: Entry | None) -> None:
            if each.kind == "endpoint":
                say(f"{each.name}: gone; {_bill(created, life.now_ns())}")

        failures = life.end([Doomed(kind, one.name, one.run) for one in wanted for kind in KINDS], gone)
    if failures:
        raise EndpointError("; ".join(f"{one.kind} {one.name} may be left: {why}" for one, why in failures))


def _bill(created: Entry | None, gone_ns: int) -> str:
    if created is None:
        return "the ledger has no open create of it, so no bill"
    usd = bill_usd(created, gone_ns)
    hours = f"{(gone_ns - created.at_ns) / 3600e9:.2f} h from create to delete"
    return f"{hours}, {'price unknown' if usd is None else f'${usd:.4f}'}"


def _refuse_unknown(life: Life, one: Deployment) -> None:
    """EndpointError for what the ledger knows elsewhere only, or doesn't know and is there: not ours to end."""
    known = {kind for kind in KINDS if life.known(kind, one.name)}
    there = next((entry for entry in life.elsewhere() if entry.name == one.name), None)
    if there and not known:
        made, here = f"{there.region} by account {there.account}", f"{life.region} as account {life.account}"
        raise EndpointError(f"{one.name} was made in {made}, and this is {here}: it may be there still")
    if "endpoint" not in known and describe(life.aws, "endpoint", one.name) is not None:
        hint = f"`raybench gc --run {one.run} --yes` ends it all the same"
        raise EndpointError(f"{one.name} was not deployed from here; {hint}")


def gc(run: str | None, region: str | None, yes: bool, say: Say, *, life_in: LifeIn = life_in) -> None:
    """Tells what was left behind in the region, and in those of the ledger if none is named; deletes it if `yes`.

    EndpointError if something of it is still there afterwards; InterruptedRunError says what a signal left.
    """
    doomed: set[tuple[str, Doomed]] = set()

    def left() -> str:
        again = f"`raybench gc{f' --run {run}' if run else ''} --yes`"
        told = ", ".join(f"{each.kind} {each.name} in {where}" for where, each in sorted(doomed, key=str))
        return f"may be left, and an endpoint costs: {told}; {again} goes on" if told else f"{again} looks again"

    with _interruptible("what is not deleted yet stays", left) as ear:
        first = life_in(region, ear)
        others = {} if region else {of: None for by, of, _, _ in first.ledger.open() if by == first.account}
        others.pop(first.region, None)
        lives = [first, *(life_in(other, ear) for other in others)]
        for life in lives:
            _sweep(life, run, yes, doomed, say)
        for unseen in out_of_sight(first, region, run):
            say(unseen)
    where = ", ".join(life.region for life in lives) + f" of account {first.account}"
    if yes and doomed:
        raise EndpointError(f"{len(doomed)} resources are still there; run `raybench gc` again")
    endpoints = sum(each.kind == "endpoint" for _, each in doomed)
    say(f"{endpoints} billable resources left in {where}" + ("; --yes deletes them" if endpoints else ""))


def _sweep(life: Life, run: str | None, yes: bool, doomed: set[tuple[str, Doomed]], say: Say) -> None:
    """Tells what was left behind, and deletes it if `yes`; `doomed` gets all of it that is not known to be gone."""
    found = left_behind(life, run)
    doomed.update((life.region, each) for each in found)
    for each in found:
        say(f"{life.region}: {each.kind} {each.name}: run {each.run}, {each.why}, expires {each.expires}")
    if yes:
        for one, why in life.end(found, lambda each, _: doomed.discard((life.region, each))):
            say(f"{life.region}: {one.kind} {one.name} may be left: {why}")
        doomed.update((life.region, each) for each in left_behind(life, run))


def found(config: Config, experiment: str) -> str:
    """The name of the endpoint that `raybench deploy` made for an experiment; EndpointError if it doesn't serve."""
    name = endpoint_name(config.name, experiment)
    there = describe(client(config.region), "endpoint", name)
    status = there["EndpointStatus"] if there else "not there"
    if status != "InService":
        file = config.file or "CONFIG"
        raise EndpointError(f"{experiment}: endpoint {name} is {status}; `raybench deploy {file}` first")
    return name
