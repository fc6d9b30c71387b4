"""Finds what a crash left behind, by tags in the account and names in the ledger; deletes what carries our tags."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from raybench.endpoints.aws import ARN, PARAMETER, describe, pages, tags
from raybench.endpoints.ledger import KINDS, Kind
from raybench.endpoints.lifecycle import EXPIRES_TAG, RUN_TAG, Doomed, Life

_LISTS: dict[Kind, tuple[str, str]] = {
    "endpoint": ("list_endpoints", "Endpoints"),
    "endpoint-config": ("list_endpoint_configs", "EndpointConfigs"),
    "model": ("list_models", "Models"),
}
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class Left(Doomed):
    """A resource of ours that may go; `why` says what allows it."""

    expires: str
    why: str


def left_behind(life: Life, run: str | None = None) -> list[Left]:
    """Everything of ours in the region that has expired or belongs to `run`, endpoints first."""
    return [left for kind in KINDS for left in _of_kind(life, kind, run)]


def _of_kind(life: Life, kind: Kind, run: str | None) -> Iterator[Left]:
    for name, arn in sorted(_candidates(life, kind).items()):
        marks = tags(life.aws, arn)
        if not {RUN_TAG, EXPIRES_TAG} <= marks.keys():
            continue
        if run is not None and marks[RUN_TAG] == run:
            why = "belongs to the run"
        elif run is None and _expired(marks[EXPIRES_TAG], life.now_ns()):
            why = "expired"
        else:
            continue
        yield Left(kind, name, marks[RUN_TAG], marks[EXPIRES_TAG], why)


def _candidates(life: Life, kind: Kind) -> dict[str, str]:
    """ARNs by name: all that the account lists, and what the ledger knows and the listing does not show yet."""
    (operation, key), name, arn = _LISTS[kind], PARAMETER[kind], ARN[kind]
    found = {item[name]: item[arn] for item in pages(getattr(life.aws, operation), key)}
    for account, region, of, known in life.ledger.open():
        if (account, region, of) == (life.account, life.region, kind) and known not in found:
            there = describe(life.aws, kind, known)
            found |= {known: there[arn]} if there else {}
    return found


def out_of_sight(life: Life, region: str | None, run: str | None) -> list[str]:
    """What the ledger knows of other accounts and would have been looked for here: one sentence for each name."""
    wanted = {
        (entry.region, entry.name, entry.run, entry.account)
        for entry in life.elsewhere()
        if entry.account != life.account
        and region in (None, entry.region)
        and (entry.run == run if run is not None else entry.expires_s * 10**9 <= life.now_ns())
    }
    return [
        f"{where}: {name}: run {of}, made by account {account}: not to be seen as {life.account}, and may be there"
        for where, name, of, account in sorted(wanted)
    ]


def _expired(text: str, now_ns: int) -> bool:
    """Whether the instant of a tag is past; one that can't be read never is."""
    if not _UTC.fullmatch(text):
        return False
    try:
        expires = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return int(expires.timestamp()) * 10**9 <= now_ns
