"""Findings and manifests for the report's tests: the seed's own numbers, and a small run of two endpoints."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import made
import pyarrow as pa

from raybench.analysis.columns import RATES, TRIALS
from raybench.analysis.reduce import Findings, reduce
from raybench.analysis.tables import CURVES, FAILURES, TOKENS
from raybench.analysis.timeline import DENSITY, OVER_TIME

G5, P4D = "ml.g5.48xlarge", "ml.p4d.24xlarge"
SEED_NAMES = {
    G5: "llama2-70b-g5.48xlarge-huggingface-pytorch-tgi-inference-2.0.1-tgi1.1.0",
    P4D: "llama2-70b-p4d.24xlarge-tgi-inference-2.0.1-tgi0.9.3-gpu-py39-cu118",
}
PRICES = {G5: 20.36, P4D: 37.688}
CRITERIA = {"latency_mean": 5.0, "cost_per_10k": 50.0, "error_rate": 0.0}

# The seed's table of failed runs on payload_en_3000-3840: concurrency, mean latency (s), transactions per minute. The
# seed prints the price; it was made by dividing by these whole numbers.
SEED_FAILED = {
    G5: [(1, 10.71, 5), (2, 19.35, 5), (4, 31.97, 5), (6, 42.79, 6), (8, 55.85, 5)],
    P4D: [(1, 2.60, 25), (2, 3.80, 30), (4, 6.09, 29), (6, 8.09, 29), (8, 10.29, 30)],
}

# The seed's table of best combinations: data set, concurrency, mean latency, prompt and completion tokens,
# transactions per minute.
SEED_BEST: dict[str, list[tuple[str, int, float, int, int, int]]] = {
    G5: [("en_1-500", 4, 4.25, 304, 26, 56), ("en_500-1000", 1, 3.56, 980, 25, 16)],
    P4D: [
        ("en_1-500", 8, 2.27, 304, 328, 156),
        ("en_1000-2000", 6, 4.24, 1672, 1696, 58),
        ("en_2000-3000", 2, 3.44, 2503, 2539, 32),
        ("en_3000-3840", 2, 3.80, 3394, 3419, 30),
        ("en_500-1000", 8, 4.07, 980, 1004, 85),
    ],
}

# Buckets for which the seed says that g5 has no setting inside the budget, without numbers: one setting that misses
# it stands in for those it tried.
SEED_NONE = {G5: ["en_1000-2000", "en_2000-3000"]}

SEED_DATASETS = ["2wikimqa_e.jsonl", "2wikimqa.jsonl", "hotpotqa_e.jsonl", "hotpotqa.jsonl", "narrativeqa.jsonl"]
SEED_DATASETS += ["triviaqa_e.jsonl", "triviaqa.jsonl"]
SEED_COSTS = {G5: (4344.23, 24.569008), P4D: (1069.4, 11.195401)}
OTHER_PRICE, OTHER_COSTS = 20.0, (60.0, 0.3)
"""Of instances that the seed did not have."""

BUCKETS = ["en_1-500", "en_500-1000", "en_1000-2000", "en_2000-3000", "en_3000-3840"]


def trial(instance: str, name: str, payload: str, concurrency: int, **known: Any) -> dict[str, Any]:
    """A row of TRIALS: what is not said is null, the price follows from the rate.

    A mean or a price whose interval is not said is exact.
    """
    row: dict[str, Any] = dict.fromkeys(TRIALS.names)
    row |= {
        "trial_id": f"{name}/{payload}/closed-{concurrency}",
        "experiment": name,
        "payload": payload,
        "instance_type": instance,
        "instance_count": 1,
        "load": f"closed-{concurrency}",
        "kind": "closed",
        "concurrency": concurrency,
        "repeat": 0,
        "state": "done",
        "simulated": False,
        "requests": 100,
        "ok": 100,
        "failed": 0,
        "not_sent": 0,
        "lost": 0,
        "missing_rows": 0,
        "error_rate": 0.0,
        "price_per_hour": PRICES.get(instance, OTHER_PRICE),
        "valid": "VALID",
        "reasons": [],
        "reason_texts": [],
        "missed": [],
        "unsure": [],
    } | known
    per_minute = row["transactions_per_minute"]
    row["price_per_txn"] = row["price_per_hour"] / 60 / per_minute
    for end in ("", "_low", "_high"):
        rate = row[f"transactions_per_minute{ {'': '', '_low': '_high', '_high': '_low'}[end] }"]
        row[f"price_per_10k_txn{end}"] = None if rate is None else row["price_per_hour"] / 60 / rate * 10_000
    exact = [name for name in ("latency_mean", *(name for name in RATES if name.startswith("price"))) if row[name]]
    ends = {name + end: row[name] for name in exact for end in ("_low", "_high")}
    row |= {end: value for end, value in ends.items() if row[end] is None}
    values = {name: row[{"cost_per_10k": "price_per_10k_txn"}.get(name, name)] for name in CRITERIA}
    row["missed"] = [name for name, limit in CRITERIA.items() if values[name] is not None and values[name] > limit]
    row["criteria_met"] = not row["missed"]
    return row


def findings(
    trials: Iterable[Mapping[str, Any]],
    curves: Iterable[Mapping[str, Any]] = (),
    tokens: Iterable[Mapping[str, Any]] = (),
    failures: Iterable[Mapping[str, Any]] = (),
    over_time: Iterable[Mapping[str, Any]] = (),
    density: Iterable[Mapping[str, Any]] = (),
) -> Findings:
    """Rows as the tables that a report reads."""
    return Findings(
        trials=pa.Table.from_pylist(list(trials), TRIALS),
        curves=pa.Table.from_pylist(list(curves), CURVES),
        tokens=pa.Table.from_pylist(list(tokens), TOKENS),
        failures=pa.Table.from_pylist(list(failures), FAILURES),
        over_time=pa.Table.from_pylist(list(over_time), OVER_TIME),
        density=pa.Table.from_pylist(list(density), DENSITY),
    )


def manifest(names: Mapping[str, str], payloads: Iterable[str], **other: Any) -> dict[str, Any]:
    """A run.json of these experiments (instance type -> name) and payloads."""
    experiments = [
        {
            "name": name,
            "instance_type": instance,
            "instance_count": 1,
            "price_per_hour": PRICES.get(instance, OTHER_PRICE),
            "price_source": "config",
            "simulated": False,
            "route": "stream",
            "dialect": "tgi",
            "parameters": {"max_new_tokens": 100},
            "duration_s": SEED_COSTS.get(instance, OTHER_COSTS)[0],
            "cost_usd": SEED_COSTS.get(instance, OTHER_COSTS)[1],
        }
        for instance, name in names.items()
    ]
    return {
        "schema": 1,
        "raybench": "0.1.0",
        "name": "llama2-70b-g5-p4d-tgi",
        "run_id": "llama2-70b-g5-p4d-tgi-20261125T010203Z",
        "region": "us-west-2",
        "started_utc": "2026-11-25T01:02:03Z",
        "finished_utc": "2026-11-25T01:03:33Z",
        "state": "done",
        "simulated": False,
        "seed": 7,
        "config_file": "config-llama2-70b-g5-p4d-tgi.yml",
        "config_text": "name: llama2-70b-g5-p4d-tgi\n",
        "model": "Llama2-70b",
        "versions": {"python": "3.11.2", "ray": "2.60.0"},
        "hosts": [{"host": "bench-1", "cpus": 2}],
        "experiments": experiments,
        "payloads": [
            {
                "name": name,
                "datasets": SEED_DATASETS,
                "tokens": [1, 500],
                "language": "en",
                "kept": 1000,
                "dropped": {},
                "tokens_source": "tokenizer",
                "prompt_tokens_mean": 304.0,
            }
            for name in payloads
        ],
        "trials": [],
        "criteria": dict(CRITERIA),
        "report": {"payload": list(payloads)[-1]},
        "simulator": None,
    } | other


def seed_run() -> tuple[Findings, dict[str, Any]]:
    """The seed's benchmark, from the numbers that it prints."""
    best = {(instance, b[0], b[1]): b for instance, rows in SEED_BEST.items() for b in rows}
    rows = {
        (instance, "en_3000-3840", level): {"latency_mean": latency, "transactions_per_minute": float(rate)}
        for instance, failed in SEED_FAILED.items()
        for level, latency, rate in failed
    }
    rows[P4D, "en_3000-3840", 1] |= dict.fromkeys(("latency_p50", "latency_p95", "latency_p99"), 2.60)
    rows[P4D, "en_3000-3840", 1] |= {"prompt_token_count_mean": 3394.0, "completion_token_count_mean": 3420.0}
    for (instance, bucket, level), (_, _, latency, prompt, completion, rate) in best.items():
        known = rows.setdefault((instance, bucket, level), {})
        known |= {"latency_mean": latency, "transactions_per_minute": float(rate)}
        known |= {"prompt_token_count_mean": float(prompt), "completion_token_count_mean": float(completion)}
    for instance, buckets in SEED_NONE.items():
        rows |= {(instance, bucket, 1): {"latency_mean": 6.0, "transactions_per_minute": 10.0} for bucket in buckets}
    trials = [
        trial(instance, SEED_NAMES[instance], f"payload_{bucket}.jsonl", level, **known)
        for (instance, bucket, level), known in rows.items()
    ]
    return findings(trials), manifest(SEED_NAMES, [f"payload_{bucket}.jsonl" for bucket in BUCKETS])


def small_run(**other: Any) -> tuple[Findings, dict[str, Any]]:
    """Two endpoints, two data sets, four loads: what the demo measures, with curves, token bins and some failures."""
    names = {G5: "llama2-70b-g5.48xlarge-tgi1.1.0", P4D: "llama2-70b-p4d.24xlarge-tgi0.9.3"}
    payloads = ["payload_en_1-500", "payload_en_500-1000"]
    trials, curves, tokens, failures = [], [], [], []
    over_time, density = [], []
    for instance, base_s, top in ((G5, 1.2, 70.0), (P4D, 0.6, 190.0)):
        for place, payload in enumerate(payloads):
            for level in (1, 2, 4, 8):
                free = base_s * (1 + 0.7 * place)
                rate = min(60 * level / (free * (1 + 0.15 * (level - 1))), top / (1 + 0.5 * place))
                mean = 60 * level / rate
                requests = 24 * level
                row = trial(instance, names[instance], payload, level, **_measured(mean, rate, requests, level))
                trials.append(row)
                curves += _curve(row["trial_id"], mean, requests)
                tokens += _bins(row, mean)
                over_time += _stretches(row)
                density += _density(row)
                if row["failed"]:
                    failures.append(_failure(row))
    return findings(trials, curves, tokens, failures, over_time, density), manifest(names, payloads, **other)


def _measured(mean: float, rate: float, requests: int, level: int) -> dict[str, Any]:
    failed = 1 if level == 8 else 0
    known: dict[str, Any] = {
        "requests": requests,
        "ok": requests - failed,
        "failed": failed,
        "error_rate": failed / requests,
        "error_rate_low": 0.0,
        "error_rate_high": 4.0 / (requests + 4),
        "latency_mean": mean,
        "latency_mean_low": mean * 0.97,
        "latency_mean_high": mean * 1.03,
        "latency_p50": mean * 0.96,
        "latency_p95": mean * 1.2 if requests >= 72 else None,
        "latency_p95_low": mean * 1.1 if requests >= 72 else None,
        "latency_p95_high": mean * 1.4 if requests >= 72 else None,
        "ttft_p50": mean * 0.3,
        "ttft_p95": mean * 0.4 if requests >= 72 else None,
        "itl_p50": mean * 0.02,
        "itl_p95": mean * 0.03,
        "client_mean": mean * 0.002,
        "prefill_mean": mean * 0.3,
        "decode_mean": mean * 0.698,
        "output_tokens_per_s_per_user_mean": 25.6 / mean,
        "output_tokens_per_s_per_user_mean_low": 25.0 / mean,
        "output_tokens_per_s_per_user_mean_high": 26.2 / mean,
        "price_per_1m_output_tokens": 4000.0 / rate,
        "price_per_1m_good_tokens": 4100.0 / rate,
        "window_start_s": 2.0,
        "window_s": 60.0,
        "transactions_per_minute": rate,
        "transactions_per_minute_low": rate * 0.97,
        "transactions_per_minute_high": rate * 1.03,
        "prompt_token_count_mean": 304.2,
        "completion_token_count_mean": 25.6,
        "prompt_tokens_source": "estimate",
        "completion_tokens_source": "server",
        "lateness_p99": 0.0012,
        "little_ratio": 0.991,
        "steady": None if requests < 50 else True,
        "cpu_share": 0.12,
        "prompts_repeated": 0.0,
    }
    return known


def _curve(trial_id: str, mean: float, requests: int) -> list[dict[str, Any]]:
    points = []
    for q in (0.05, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 0.95, 0.99):
        known = requests >= math.log(0.025) / math.log(max(q, 1 - q))
        value = mean * (0.8 - 0.13 * math.log(1 - q))
        points.append(
            {
                "trial_id": trial_id,
                "quantile": q,
                "latency_s": value if known else None,
                "low_s": value * 0.95 if known else None,
                "high_s": value * 1.1 if known else None,
                "beyond": int(requests * (1 - q)),
            }
        )
    return points


def _bins(row: Mapping[str, Any], mean: float) -> list[dict[str, Any]]:
    names = ("experiment", "payload", "instance_type", "load", "concurrency")
    return [
        {name: row[name] for name in names}
        | {
            "prompt_tokens_low": 40.0 * n,
            "prompt_tokens_high": 40.0 * (n + 1),
            "latency_low_s": mean * (0.7 + 0.06 * n + 0.1 * m),
            "latency_high_s": mean * (0.8 + 0.06 * n + 0.1 * m),
            "requests": 2 + n,
            "share": (2 + n) / 120,
        }
        for n in range(8)
        for m in range(3)
    ]


def _stretches(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    rate = row["transactions_per_minute"] / 60
    return [
        {"trial_id": row["trial_id"], "from_s": 5.0 * n, "to_s": 5.0 * (n + 1), "completed_per_s": rate}
        | {"failed_per_s": 0.2 if n == 1 and row["failed"] else 0.0, "p50_s": row["latency_p50"], "p95_s": None}
        for n in range(12)
    ]


def _density(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    mean = row["latency_mean"]
    return [
        {"trial_id": row["trial_id"], "from_s": 5.0 * n, "to_s": 5.0 * (n + 1), "requests": 4, "share": 0.5}
        | {"latency_low_s": mean * (0.8 + 0.2 * m), "latency_high_s": mean * (1 + 0.2 * m)}
        for n in range(12)
        for m in range(2)
    ]


def stalled_run() -> tuple[Findings, dict[str, Any]]:
    """50 requests a second for ten seconds, 10 ms each, whose client sent none for two seconds, then caught up."""
    rows, free = [], 0.0
    for place in range(500):
        due = place / 50
        begin = max(due, free, 6.0 if due >= 4 else 0.0)
        free = begin + 0.01
        rows.append(made.row(place, due, begin, free))
    told = manifest({G5: "e"}, ["p"], trials=[made.trial(**made.OPEN)], criteria={})
    return reduce(lambda trial: made.table(rows), told), told


def repeated_run(times: int = 3) -> tuple[Findings, dict[str, Any]]:
    """The small run with each trial played so often, each a tenth slower than the one before."""
    found, told = small_run()
    tables: dict[str, list[dict[str, Any]]] = {}
    for table in ("trials", "curves", "tokens", "failures", "over_time", "density"):
        for repeat in range(times):
            for row in getattr(found, table).to_pylist():
                slower = {name: row[name] * 1.1**repeat for name in ("latency_mean", "latency_s") if row.get(name)}
                known: dict[str, Any] = {"trial_id": f"{row['trial_id']}/{repeat}"} if "trial_id" in row else {}
                known |= {"repeat": repeat} if table == "trials" else {}
                tables.setdefault(table, []).append(row | slower | known)
    return findings(**tables), told


def _failure(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("trial_id", "experiment", "payload", "load")} | {
        "outcome": "throttled",
        "error_code": "ThrottlingException",
        "error_message": "Rate exceeded",
        "requests": 1,
        "first_s": 3.2,
        "last_s": 3.2,
    }


HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "\"><img src=x onerror='window.pwned=1'>",
    "\u2028'+(window.pwned=1)+'\u202e",
    "{{7*7}} var(--c1) url(#clip0) =1+1",
)


def hostile_run() -> tuple[Findings, dict[str, Any]]:
    """The small run, with markup, script, separators and bidi marks in every field that outsiders can fill."""
    found, told = small_run()
    script, image, separator, template = HOSTILE
    names = {about["name"]: bad for about, bad in zip(told["experiments"], (script, separator), strict=True)}
    names |= {about["name"]: bad for about, bad in zip(told["payloads"], (image, template), strict=True)}
    tables = {}
    for table in ("trials", "curves", "tokens", "failures", "over_time", "density"):
        rows = getattr(found, table).to_pylist()
        for row in rows:
            row |= {key: names[row[key]] for key in ("experiment", "payload") if key in row}
            row |= {key: bad for key, bad in (("error_message", image), ("error_code", script)) if row.get(key)}
            row |= {"reasons": [separator], "reason_texts": [image]} if "reasons" in row else {}
        tables[table] = rows
    for about in (*told["experiments"], *told["payloads"]):
        about["name"] = names[about["name"]]
    for about in told["payloads"]:
        about["datasets"] = [image, script]
    for about in told["experiments"]:
        about["instance_type"] = script
    told |= {"name": script, "run_id": image, "region": separator, "model": image, "config_file": "../" + image}
    told |= {"config_text": "\n".join(HOSTILE), "hosts": [{"host": script, "cpus": 2}], "versions": {image: script}}
    told["report"] = {"payload": template}
    return findings(**tables), told


def hostile_rows_run() -> tuple[Findings, dict[str, Any]]:
    """A run reduced from rows in which every field that an endpoint or a model can fill is hostile."""
    script, image, separator, template = HOSTILE
    bad: dict[str, Any] = {
        "request_id": script,
        "variant": image,
        "finish_reason": separator,
        "prompt_id": template,
        "prompt_text": script,
        "completion_text": image,
        "host": script,
        "actor": separator,
        "experiment": script,
        "payload": image,
        "load": template,
    }
    trials, tables = [], {}
    for level in (1, 2, 4):
        named = {"experiment": script, "payload": image, "load": f"{template}{level}", "trial_id": f"{script}{level}"}
        trials.append(made.trial(**named, concurrency=level, duration_s=None, requests=90))
        tables[f"{script}{level}"] = made.table(
            made.row(n, n / 10, end=n / 10 + 1.0 + n / 500, chunks=[n / 10 + 0.2, n / 10 + 0.9], **bad | named)
            if n % 9
            else made.failed(
                n, n / 10, **bad | named | {"error_code": HOSTILE[n % 4], "error_message": HOSTILE[n % 3]}
            )
            for n in range(90)
        )
    told = manifest({G5: script}, [image])
    told |= {"name": script, "run_id": separator, "region": image, "model": template, "trials": trials}
    told |= {"config_text": "\n".join(HOSTILE), "hosts": [{"host": script, "cpus": 2}], "versions": {script: image}}
    for experiment in told["experiments"]:
        experiment |= dict.fromkeys(("instance_type", "route", "dialect", "price_source"), script)
        experiment |= {"parameters": {script: image}, "price_per_hour": 20.0}
    for payload in told["payloads"]:
        payload |= {"datasets": list(HOSTILE), "language": script, "tokens_source": image}
    return reduce(lambda trial: tables[trial["trial_id"]], told), told
