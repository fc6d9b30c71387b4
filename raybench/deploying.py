"""`deploy`, `teardown` and `gc`: the endpoints that a config asks for, made, billed, ended and found again."""

from collections.abc import Callable
from decimal import Decimal

from raybench.config import Config
from raybench.endpoints.bill import bill_usd
from raybench.endpoints.gc import collect, left_behind
from raybench.endpoints.ledger import KINDS, default_ledger
from raybench.endpoints.lifecycle import Deployment, Life, client, describe, endpoint_name, utc
from raybench.errors import EndpointError, InterruptedRunError
from raybench.specs import DeployedEndpoint

Say = Callable[[str], None]


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


def life_in(region: str | None) -> Life:
    """The lifecycle of endpoints in a region, botocore's own if None, with this user's ledger."""
    return Life(client(region), default_ledger())


def deploy(config: Config, life_s: int, say: Say) -> None:
    """Makes every endpoint of a config, one after the other, and waits until each serves; EndpointError."""
    wanted, life = deployments(config), life_in(config.region)
    for one in wanted:
        hourly = None if one.usd_per_hour is None else Decimal(one.usd_per_hour) * one.instances
        price = "price unknown" if hourly is None else f"${hourly:.2f} per hour"
        say(f"{one.name}: deploying {one.instances} × {one.instance_type}, {price}")
        try:
            entry = life.deploy(one, life_s)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"interrupted; {one.name} is deleted, earlier ones: raybench teardown"
            ) from None
        until = utc(entry.expires_s)
        say(f"{one.name}: in service; costs until `raybench teardown`; from {until} on, `raybench gc` ends it too")


def teardown(config: Config, say: Say) -> None:
    """Deletes every endpoint that a config made, with what belongs to it, and tells the bill; EndpointError."""
    wanted, life = deployments(config), life_in(config.region)
    for one in wanted:
        known = (life.region, "endpoint", one.name) in life.ledger.open()
        if not known and describe(life.aws, "endpoint", one.name) is not None:
            hint = f"`raybench gc --run {one.run} --yes` ends it all the same"
            raise EndpointError(f"{one.name} was not deployed from here; {hint}")
        created = life.delete("endpoint", one.name, one.run)
        gone_ns = life.now_ns()
        for kind in KINDS[1:]:
            life.delete(kind, one.name, one.run)
        if created is None:
            say(f"{one.name}: gone; the ledger has no open create of it, so no bill")
            continue
        usd = bill_usd(created, gone_ns)
        hours = f"{(gone_ns - created.at_ns) / 3600e9:.2f} h from create to delete"
        say(f"{one.name}: gone; {hours}, {'price unknown' if usd is None else f'${usd:.4f}'}")


def gc(run: str | None, region: str | None, yes: bool, say: Say) -> None:
    """Tells what was left behind in the region, and in those of the ledger if none is named; deletes it if `yes`.

    EndpointError if something of it is still there afterwards.
    """
    first = life_in(region)
    others = {} if region else dict.fromkeys(of for of, _, _ in first.ledger.open() if of != first.region)
    lives = [first, *(life_in(other) for other in others)]
    left = staying = 0
    for life in lives:
        found = left_behind(life, run)
        for each in found:
            say(f"{life.region}: {each.kind} {each.name}: run {each.run}, {each.why}, expires {each.expires}")
        if yes:
            for failure in collect(life, found):
                say(f"{life.region}: {failure}")
            found = left_behind(life, run)
        left += sum(each.kind == "endpoint" for each in found)
        staying += len(found) if yes else 0
    if staying:
        raise EndpointError(f"{staying} resources are still there; run `raybench gc` again")
    where = ", ".join(life.region for life in lives)
    say(f"{left} billable resources left in {where}" + ("" if yes or not left else "; --yes deletes them"))


def found(config: Config, experiment: str) -> str:
    """The name of the endpoint that `raybench deploy` made for an experiment; EndpointError if it doesn't serve."""
    name = endpoint_name(config.name, experiment)
    there = describe(client(config.region), "endpoint", name)
    status = there["EndpointStatus"] if there else "not there"
    if status != "InService":
        file = config.file or "CONFIG"
        raise EndpointError(f"{experiment}: endpoint {name} is {status}; `raybench deploy {file}` first")
    return name
