"""The Grafana dashboard of the metrics in `metrics.py`: `python -m raybench.cluster.grafana` prints its JSON."""

import json
from collections.abc import Sequence
from typing import Any

from raybench.cluster.metrics import IN_FLIGHT, REQUESTS, TOKENS, histogram, means

COLUMNS, WIDTH, HEIGHT = 2, 12, 8
CHOSEN = 'experiment=~"$experiment", payload=~"$payload", load=~"$load"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

Query = tuple[str, str]
"""PromQL, and the legend of its lines."""


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it; its data source is chosen there."""
    return {
        "uid": "raybench",
        "title": "raybench",
        "tags": ["raybench", "ray"],
        "editable": True,
        "refresh": "5s",
        "schemaVersion": 39,
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": [_source(), *map(_variable, ("experiment", "payload", "load"))]},
        "panels": [_panel(place, *panel) for place, panel in enumerate(_panels())],
    }


def _panels() -> Sequence[tuple[str, str, str, Sequence[Query]]]:
    """Title, what it means, unit, queries."""
    each = _rate(REQUESTS.exported)
    requests, failed = (_sum(of, "experiment") for of in (each, _rate(REQUESTS.exported, 'outcome!="ok"')))
    return (
        ("In flight", IN_FLIGHT.means, "short", [(_sum(_of(IN_FLIGHT.exported), "experiment"), _ONE)]),
        ("Requests per second", REQUESTS.means, "reqps", [(_sum(each, "experiment, outcome"), _BOTH)]),
        (
            "Errors",
            "share of requests that failed",
            "percentunit",
            [(f"({failed} or 0 * {requests}) / {requests}", _ONE)],
        ),
        ("Output tokens per second", TOKENS.means, "short", [(_sum(_rate(TOKENS.exported), "experiment"), _ONE)]),
        *((title, means(name), "s", _percentiles(name)) for name, title in _TITLES.items()),
        (
            "Lateness by actor",
            f"p99 of {means('lateness')}; what is late here is the load generator's fault",
            "s",
            [(_quantile("lateness", 0.99, "actor"), "{{actor}}")],
        ),
    )


_TITLES = {"latency": "Latency", "ttft": "Time to first token", "lateness": "Lateness"}
_ONE, _BOTH = "{{experiment}}", "{{experiment}} {{outcome}}"


def _of(name: str, *filters: str) -> str:
    return f"{name}{{{', '.join((CHOSEN, *filters))}}}"


def _rate(name: str, *filters: str) -> str:
    return f"rate({_of(name, *filters)}[1m])"


def _sum(of: str, by: str) -> str:
    return f"sum by ({by}) ({of})"


def _quantile(name: str, q: float, by: str) -> str:
    bucket, _, _ = histogram(name)
    return f"histogram_quantile({q:g}, {_sum(_rate(bucket.exported), f'{by}, le')})"


def _percentiles(name: str) -> list[Query]:
    return [(_quantile(name, q, "experiment"), f"{{{{experiment}}}} p{q * 100:g}") for q in (0.5, 0.95, 0.99)]


def _panel(place: int, title: str, means: str, unit: str, queries: Sequence[Query]) -> dict[str, Any]:
    row, column = divmod(place, COLUMNS)
    targets = [
        {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for number, (query, legend) in enumerate(queries)
    ]
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": title,
        "description": means,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(label: str) -> dict[str, Any]:
    query = f"label_values({REQUESTS.exported}, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
