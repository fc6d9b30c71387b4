"""The config file: what it becomes, and that every wrong one is one line with file, line, key and what is allowed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raybench.config import Config, load_config
from raybench.errors import InputError
from raybench.load.arrivals import Closed, Constant, Gamma, Load, Poisson, Ramp, Replay
from raybench.load.search import Search
from raybench.payloads.files import Jsonl, LongBench
from raybench.payloads.pool import Payload
from raybench.payloads.synthetic import Recorded, Synthetic
from raybench.simulator.profiles import PROFILES
from raybench.specs import ExistingEndpoint, SimulatedEndpoint
from raybench.yamlfile import MAX_BYTES

CONFIGS = Path(__file__).parents[1] / "configs"

GOOD = """\
name: good
region: us-west-2
experiments:
  - name: g5
    instance_type: ml.g5.48xlarge
    endpoint: {name: my-endpoint, variant: blue}
    route: stream
    parameters: {max_new_tokens: 100, stop: ["</s>", "\\n"]}
    price_per_hour: 20.36
payloads:
  - name: short
    dataset: {jsonl: prompts.jsonl}
    tokens: [1, 500]
loads:
  - kind: closed
    concurrency: [1, 8]
    duration: 60s
    warmup: 500ms
criteria: {latency_p95: 5s, cost_per_10k: 50, error_rate: 0, enforce: true}
report: {payload: short}
"""

Write = Callable[[str | bytes], Path]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Writes a config beside a prompts.jsonl, and says where."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    (folder / "trace.jsonl").write_text('{"timestamp": 0, "input_length": 1, "output_length": 1}\n')

    def write(text: str | bytes) -> Path:
        path = folder / "bad.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def complaint(write: Write, text: str | bytes) -> str:
    """What is said about a wrong config, without the folder's name; the exit code is 2."""
    path = write(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert caught.value.exit_code == 2
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(path), path.name)


def loads(write: Write, load: str) -> tuple[Load, ...]:
    config = load_config(write(GOOD[: GOOD.index("  - kind")] + f"  - {load}\n"))
    found = tuple(config.loads[0].arrivals())
    return tuple(load for load in found if not isinstance(load, Search))


def test_a_good_file_becomes_frozen_models_with_seconds_paths_and_defaults(write: Write) -> None:
    path = write(GOOD)
    config = load_config(path)
    assert config.experiments[0].endpoint == ExistingEndpoint(name="my-endpoint", variant="blue")
    assert config.experiments[0].parameters == {"max_new_tokens": 100, "stop": ("</s>", "\n")}
    assert config.experiments[0].max_tokens == 100
    assert (config.loads[0].duration_s, config.loads[0].warmup_s) == (60.0, 0.5)
    assert tuple(config.loads[0].arrivals()) == (Closed(1), Closed(8))
    assert config.payloads[0].payload == Payload("short", Jsonl((path.parent / "prompts.jsonl",)), None, (1, 500))
    assert config.criteria.limits == {"latency_p95": 5.0, "cost_per_10k": 50.0, "error_rate": 0.0}
    assert config.criteria.enforce
    assert (config.seed, config.repeats, config.keep_text, config.fleet.actors) == (0, 1, False, 1)
    assert (config.text, config.file) == (GOOD, path)
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        ("{kind: closed, concurrency: 2, think_time: 1.5s, requests: 9}", Closed(2, 1.5)),
        ("{kind: constant, rate: 2, duration: 1m}", Constant(2.0)),
        ("{kind: poisson, rate: 0.5, duration: 1h, max_in_flight: 7}", Poisson(0.5, 7)),
        ("{kind: gamma, rate: 2.0, burstiness: 0.25, duration: 60s}", Gamma(2.0, 0.25)),
        ("{kind: ramp, from: 0, to: 9, over: 2m, steps: 3, duration: 2m}", Ramp(0.0, 9.0, 120.0, 3)),
    ],
)
def test_each_kind_of_load_becomes_the_object_that_is_played(write: Write, load: str, wanted: Load) -> None:
    assert loads(write, load) == (wanted,)


def test_a_payload_can_be_the_requests_of_a_trace(write: Write) -> None:
    text = GOOD.replace("{jsonl: prompts.jsonl}", "{trace: trace.jsonl}").replace("    tokens: [1, 500]\n", "")
    (payload,) = load_config(write(text)).payloads
    assert payload.payload.dataset == Recorded("trace.jsonl", ((1, 1),))
    assert payload.expected_tokens == 1


def test_a_replayed_trace_is_found_beside_the_config(write: Write) -> None:
    (load,) = loads(write, "{kind: replay, trace: trace.jsonl, speed: 2, slice: [1s, 1m], duration: 60s}")
    assert load == Replay(write(GOOD).parent / "trace.jsonl", 2.0, (1.0, 60.0))


def test_a_list_of_rates_becomes_a_load_for_each(write: Write) -> None:
    assert loads(write, "{kind: poisson, rate: [1, 2.5], duration: 60s}") == (Poisson(1.0), Poisson(2.5))


def test_each_kind_of_dataset_becomes_the_object_that_is_read(write: Write) -> None:
    prompts = write(GOOD).parent / "prompts.jsonl"
    for text, wanted in (
        ("{longbench: [prompts.jsonl]}", LongBench((prompts,))),
        ("{synthetic: {prompts: 10, tokens: [5, 9]}}", Synthetic(10, (5, 9))),
        ("{synthetic: {prompts: 10}}", Synthetic(10)),
    ):
        config = load_config(write(GOOD.replace("{jsonl: prompts.jsonl}", text)))
        assert config.payloads[0].payload.dataset == wanted


def test_the_openai_route_speaks_openai_unless_told(write: Write) -> None:
    good = GOOD.replace("stream\n", "openai\n").replace(", variant: blue", "")
    assert load_config(write(good)).experiments[0].dialect == "openai"


def test_a_simulated_endpoint_is_its_profile_with_some_numbers_replaced(write: Write) -> None:
    text = "{simulate: fixed, overrides: {ttft_s: 1, tokens: 7}, faults: {throttle: 0.3}}"
    endpoint = load_config(write(GOOD.replace("{name: my-endpoint, variant: blue}", text))).experiments[0].endpoint
    assert isinstance(endpoint, SimulatedEndpoint)
    assert (endpoint.profile.tokens, endpoint.profile.jitter) == (7, PROFILES["fixed"].jitter)
    assert endpoint.faults == {"throttle": 0.3}


@pytest.mark.parametrize(
    "path", sorted(set(CONFIGS.glob("*.yaml")) - set(CONFIGS.glob("cluster-*"))), ids=lambda path: path.stem
)
def test_every_config_that_we_ship_is_good(path: Path) -> None:
    assert load_config(path).name == path.stem


FILES: dict[str, tuple[str | bytes, str]] = {
    "1 empty": ("", "bad.yaml:1: the file is empty; a mapping"),
    "1 only a comment": ("# nothing\n", "bad.yaml:1: the file is empty; a mapping"),
    "2 tab": ("name: x\nloads:\n\t- 1\n", r"bad.yaml:3: contains the character U\+0009 TAB; .*spaces"),
    "2 unbalanced": ("name: [x\n", r"bad.yaml:2: not YAML: .*; one YAML mapping"),
    "3 two documents": ("name: x\n---\nname: y\n", "bad.yaml:2: a second document begins; one document"),
    "4 list": ("- name: x\n", "bad.yaml:1: the file is a list; a mapping"),
    "5 tag": ("name: !!python/object:os.system x\n", "bad.yaml:1: name: the tag .* is not read; plain values"),
    "5 local tag": ("name: !x y\n", "bad.yaml:1: name: the tag '!x' is not read; plain values"),
    "6 duplicate": ("name: x\nseed: 1\nname: y\n", "bad.yaml:3: name: is given twice, first on line 1; once"),
    "7 alias bomb": ("a: &a [x, x]\nb: [*a, *a]\n", "bad.yaml:1: a: anchors and aliases are not read; write"),
    "7 alias key": ("*a : 1\n", "bad.yaml:1: anchors and aliases are not read; write"),
    "8 self-reference": ("&a [*a]\n", "bad.yaml:1: anchors and aliases are not read; write"),
    "9 deep": ("name: " + "[" * 3000 + "]" * 3000, "bad.yaml:1: .*nest"),
    "9 deep by lines": ("".join(f"{' ' * n}k:\n" for n in range(30)), "bad.yaml:21: .*nested too deep; at most 20"),
    "10 large": ("name: x\n" + "#" * 2 * MAX_BYTES, f"bad.yaml:1: the file is too large; at most {MAX_BYTES} bytes"),
    "11 not UTF-8": (b"name: x\nmodel: \xff\n", "bad.yaml:2: byte 0xff is not UTF-8; UTF-8 text"),
    "11 UTF-16": ("name: x\n".encode("utf-16"), "bad.yaml:1: byte 0x.. is not UTF-8; UTF-8 text"),
    "12 bidi": ("\nname: a\u202eb\n", r"bad.yaml:2: contains the character U\+202E RIGHT-TO-LEFT OVERRIDE; print"),
    "12 bidi, escaped": ('name: "\\u2066"\n', r"bad.yaml:1: name: contains the character U\+2066 .*; print"),
    "12 control": ("name: a\x1bb\n", r"bad.yaml:1: contains the character U\+001B"),
    "12 line separator": ("name: a\u2028b\n", r"bad.yaml:1: contains the character U\+2028"),
    "number as a key": ("1: x\n", "bad.yaml:1: a key is not text; text keys"),
    "line in a key": ('"a\\nb": 1\n', r"bad.yaml:1: 'a\\nb': unknown key; one of"),
    "line in a value": ('region: "a\\nb"\n', r"bad.yaml:1: "),
    "line in a tag": ("name: !a%0Ab x\n", r"bad.yaml:1: name: the tag '!a\\nb' is not read; plain values"),
    "endless key": ("k" * 500 + ": 1\n", "bad.yaml:1: 'k{40}': unknown key; one of"),
    "list as a key": ("? [a]\n: x\n", "bad.yaml:1: a key is not text; text keys"),
    "yes": ("keep_text: yes\n", "bad.yaml:1: keep_text: yes is a boolean to some readers only; true or false"),
    "NO": ("model: NO\n", "bad.yaml:1: model: NO is a boolean to some readers only; true or false, or quoted"),
    "26 octal": ("seed: 010\n", "bad.yaml:1: seed: 010 is octal to some readers; a number with no leading zero"),
    "hexadecimal": ("seed: 0x10\n", "bad.yaml:1: seed: 0x10 is not a decimal number; a decimal number"),
    "underscores": ("seed: 1_000\n", "bad.yaml:1: seed: 1_000 has underscores; digits only"),
    "endless digits": ("seed: " + "9" * 5000, "bad.yaml:1: seed: 9+ has too many digits; at most 18"),
    "huge exponent": ("seed: 1e999\n", "bad.yaml:1: seed: 1e999 is not a finite number; a finite number"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_not_plain_yaml_is_refused(write: Write, case: str) -> None:
    text, wanted = FILES[case]
    assert re.match(wanted, complaint(write, text))


EDITS: dict[str, tuple[str, str, str]] = {
    "another trace": (
        "dataset: {jsonl: prompts.jsonl}\n    tokens: [1, 500]\nloads:\n  - kind: closed\n    concurrency: [1, 8]",
        "dataset: {trace: trace.jsonl}\nloads:\n  - kind: replay\n    trace: prompts.jsonl",
        "14: loads[0]: replays another trace or slice than 'short' has the requests of; the same trace and slice",
    ),
    "tokens of a trace": (
        "{jsonl: prompts.jsonl}",
        "{trace: trace.jsonl}",
        "13: payloads[0].tokens: a trace's requests are all there, as long as they were; no tokens",
    ),
    "empty slice of a load": (
        "- kind: closed\n    concurrency: [1, 8]",
        "- kind: replay\n    trace: trace.jsonl\n    slice: [5s, 5s]",
        "17: loads[0].slice: an empty slice; [from, to) with from < to",
    ),
    "empty slice of a payload": (
        "{jsonl: prompts.jsonl}\n    tokens: [1, 500]",
        "{trace: trace.jsonl, slice: [1m, 5s]}",
        "12: payloads[0].dataset.slice: an empty slice; [from, to) with from < to",
    ),
    "13 unknown": ("concurrency:", "concurency:", "16: loads[0].concurency: unknown key; did you mean concurrency?"),
    "13 unknown on top": ("region:", "regoin:", "2: regoin: unknown key; did you mean region?"),
    "13 unknown, nothing near": ("report: {payload", "report: {xyz", "20: report.xyz: unknown key; one of payload"),
    "14 no endpoint": (
        "    endpoint: {name: my-endpoint, variant: blue}\n", "",
        "4: experiments[0].endpoint: is missing; it is required",
    ),
    "14 no loads": (GOOD[GOOD.index("loads:\n  - kind") : GOOD.index("criteria:")], "", "1: loads: is missing; it i"),
    "14 no load": (GOOD[GOOD.index("  - kind") : GOOD.index("criteria:")], "", "14: loads: null is not allowed; a l"),
    "15 concurrency 0": ("[1, 8]", "0", "16: loads[0].concurrency: 0 is not allowed; at least 1"),
    "16 concurrency -1": ("[1, 8]", "[-1]", "16: loads[0].concurrency[0]: -1 is not allowed; at least 1"),
    "17 concurrency 2.5": ("[1, 8]", "2.5", "16: loads[0].concurrency: 2.5 is not allowed; a whole number"),
    "18 concurrency true": ("[1, 8]", "true", "16: loads[0].concurrency: true is not allowed; a whole number"),
    "19 concurrency '8'": ("[1, 8]", '"8"', "16: loads[0].concurrency: '8' is not allowed; a whole number"),
    "20 concurrency 10⁹": ("[1, 8]", "1000000000", "16: loads[0].concurrency: 1000000000 is not allowed; at most"),
    "no concurrency": ("[1, 8]", "[]", "16: loads[0].concurrency: an empty list is not allowed; at least one"),
    "endless concurrency": ("[1, 8]", f"{[1] * 1001}", "16: loads[0].concurrency: a list of 1001 is not allowed; at"),
    "21 twice": ("[1, 8]", "[8, 8]", "16: loads[0].concurrency[1]: 8 is given twice; each value once"),
    "ramp too steep": (
        "closed\n    concurrency: [1, 8]", "ramp\n    from: 0\n    to: 9\n    over: 0.0000001ms",
        "18: loads[0].over: 1e-10 is not allowed; at least 0.000000001",
    ),
    "rate too low": (
        "closed\n    concurrency: [1, 8]", "poisson\n    rate: 0.000001",
        "16: loads[0].rate: 1e-06 is not allowed; at least 0.00001",
    ),
    "variant by openai": (
        "stream\n", "openai\n", "7: experiments[0].route: the openai route reaches no variant of one's choice; route"
    ),
    "22 rate nan": ("concurrency: [1, 8]", "rate: .nan", "16: loads[0].rate: .nan is not a finite number; a finite"),
    "23 rate inf": ("concurrency: [1, 8]", "rate: .inf", "16: loads[0].rate: .inf is not a finite number; a finite"),
    "24 rate 0": (
        "closed\n    concurrency: [1, 8]", "poisson\n    rate: 0",
        "16: loads[0].rate: 0 is not allowed; at least 0.00001",
    ),
    "25 sexagesimal": ("60s", "12:30:00", "17: loads[0].duration: 12:30:00 is base 60 to some readers; a duration"),
    "25 no unit": ("60s", "60", "17: loads[0].duration: 60 is not a duration; text with a unit: 500ms, 60s, 5m or 1"),
    "25 wrong unit": ("60s", "60 sec", "17: loads[0].duration: '60 sec' is not a duration; text with a unit"),
    "25 no time": ("60s", "0s", "17: loads[0].duration: '0s' is not allowed; greater than 0"),
    "26 octal": ("[1, 8]", "010", "16: loads[0].concurrency: 010 is octal to some readers; a number with no"),
    "27 region": ("us-west-2", "us-esat-1", "2: region: 'us-esat-1' is not a region; did you mean us-east-1?"),
    "27 region of nowhere": ("us-west-2", "moon", "2: region: 'moon' is not a region; one of af-south-1"),
    "28 endpoint name": (
        "my-endpoint", "e" * 64,
        f"6: experiments[0].endpoint.name: '{'e' * 55}...' is not a SageMaker name; 1 to 63 of",
    ),
    "32 no dataset": ("prompts.jsonl", "no.jsonl", "12: payloads[0].dataset.jsonl: no such file: 'no.jsonl'; a file"),
    "32 a folder": ("prompts.jsonl", "..", "12: payloads[0].dataset.jsonl: no such file: '..'; a file"),
    "32 NUL": ("prompts.jsonl", '"a\\0"', "12: payloads[0].dataset.jsonl: contains the character U+0000"),
    "40 no price": (
        "    price_per_hour: 20.36\n", "",
        "18: criteria.cost_per_10k: 'g5' has no price_per_hour, so its cost cannot be known; a price",
    ),
    "no template": ("tokens: [1", "template: t.txt\n    tokens: [1", "13: payloads[0].template: no such file: 't.tx"),
    "unknown dataset": ("jsonl:", "csv:", "12: payloads[0].dataset.csv: not a kind of dataset; one of jsonl, longb"),
    "two datasets": ("{jsonl", "{longbench: prompts.jsonl, jsonl", "12: payloads[0].dataset: which dataset?; exactl"),
    "dataset as text": ("{jsonl: prompts.jsonl}", "x", "12: payloads[0].dataset: is not a mapping; exactly one"),
    "empty bucket": ("[1, 500]", "[500, 500]", "13: payloads[0].tokens: no length is in [500, 500); [min, max)"),
    "bucket of three": ("[1, 500]", "[1, 2, 3]", "13: payloads[0].tokens: a list is not allowed; a list of at most "),
    "made up, no length": (
        "{jsonl: prompts.jsonl}\n    tokens: [1, 500]", "{synthetic: {prompts: 9}}",
        "12: payloads[0].dataset.synthetic: how long are the made-up prompts?; tokens: [min, max)",
    ),
    "made up, out of the bucket": (
        "{jsonl: prompts.jsonl}", "{synthetic: {prompts: 9, tokens: [9, 900]}}",
        "12: payloads[0].dataset.synthetic.tokens: [9, 900) reaches out of the bucket; inside the bucket [1, 500)",
    ),
    "made up, in Dutch": (
        "{jsonl: prompts.jsonl}", "{synthetic: {prompts: 9}}\n    language: nl",
        "13: payloads[0].language: made-up prompts are in English; language: en",
    ),
    "unknown kind": ("closed", "close", "15: loads[0].kind: 'close' is not a kind of load; did you mean closed?"),
    "no kind": ("kind: closed\n    ", "", "15: loads[0].kind: is missing; "),
    "no end": ("    duration: 60s\n", "", "15: loads[0]: neither duration nor requests is given; exactly one"),
    "two ends": ("60s\n", "60s\n    requests: 9\n", "15: loads[0]: it would end twice; exactly one"),
    "unknown payload": ("60s\n", "60s\n    payloads: shrt\n", "18: loads[0].payloads: 'shrt' is none of the"),
    "unknown route": ("stream\n", "streem\n", "7: experiments[0].route: 'streem' is not allowed; did you mean strea"),
    "unknown dialect": ("stream\n", "stream\n    dialect: tgl\n", "8: experiments[0].dialect: 'tgl' is not allowed;"),
    "tgi by openai": ("stream\n", "openai\n    dialect: tgi\n", "8: experiments[0].dialect: the openai route does n"),
    "embeddings": ("stream\n", "stream\n    dialect: embeddings\n", "7: experiments[0].route: embeddings are not"),
    "a stream read whole": (
        "stream\n", "invoke\n    dialect: openai\n    parameters: {stream: true}\n    #",
        "9: experiments[0].parameters.stream: the invoke route reads whole replies, and this asks for a strea",
    ),
    "instance": ("ml.g5.48xlarge", "g5.48xlarge", "5: experiments[0].instance_type: 'g5.48xlarge' is not an instanc"),
    "max tokens": ("100,", '"100",', "8: experiments[0].parameters.max_new_tokens: '100' is not allowed; a whole"),
    "max tokens twice": (
        "100,", "100, max_tokens: 9,",
        "8: experiments[0].parameters.max_tokens: both max_new_tokens and max_tokens bound a completion; one of them",
    ),
    "price": ("20.36", "-1", "9: experiments[0].price_per_hour: -1 is not allowed; greater than 0"),
    "name": ("good", "a/b", "1: name: 'a/b' is not a name; 1 to 80 of"),
    "long name": ("good", "a" * 81, "1: name: 'aaa"),
    "null name": ("good", "", "1: name: null is not allowed; text"),
    "deploy": (
        "{name: my-endpoint, variant: blue}", "{deploy: {image: x}}",
        "6: experiments[0].endpoint.deploy.role: is missing; ",
    ),
    "neither endpoint": ("name: my-endpoint, ", "", "6: experiments[0].endpoint: an endpoint is either there alread"),
    "endpoint as text": ("{name: my-endpoint, variant: blue}", "x", "6: experiments[0].endpoint: 'x' is not allowed"),
    "url of ftp": ("variant: blue", "url: ftp://x", "6: experiments[0].endpoint.url: is not an endpoint's URL; http"),
    "url with a password": ("variant: blue", "url: http://:secret@x", "6: experiments[0].endpoint.url: is not"),
    "url with a query": ("variant: blue", "url: http://x/?a=b", "6: experiments[0].endpoint.url: is not an endpoint"),
    "url with a line": ("variant: blue", 'url: "http://x\\nHost: y"', "6: experiments[0].endpoint.url: is not"),
    "url with a port too high": ("variant: blue", 'url: "http://x:99999"', "6: experiments[0].endpoint.url: is not"),
    "profile": (
        "{name: my-endpoint, variant: blue}", "{simulate: fixd}",
        "6: experiments[0].endpoint.simulate: 'fixd' is not a profile; did you mean fixed?",
    ),
    "override": (
        "{name: my-endpoint, variant: blue}", "{simulate: fixed, overrides: {ttft: 1}}",
        "6: experiments[0].endpoint.overrides.ttft: unknown key; did you mean ttft_s?",
    ),
    "override as text": (
        "{name: my-endpoint, variant: blue}", "{simulate: fixed, overrides: {ttft_s: fast}}",
        "6: experiments[0].endpoint.overrides.ttft_s: 'fast' is not allowed; like 0.1",
    ),
    "faults that are not text": (
        "{name: my-endpoint, variant: blue}", "{simulate: fixed, faults: {script: [{a: 1}]}}",
        "6: experiments[0].endpoint.faults: ",
    ),
    "faults above 1": (
        "{name: my-endpoint, variant: blue}", "{simulate: fixed, faults: {cut: 0.6, hang: 0.6}}",
        "6: experiments[0].endpoint.faults: ",
    ),
    "unknown criterion": ("latency_p95", "latencyp95", "19: criteria.latencyp95: unknown metric; did you mean laten"),
    "criterion without unit": ("5s,", "5,", "19: criteria.latency_p95: 5 is not a duration; text with a unit"),
    "criterion above 1": ("error_rate: 0", "error_rate: 2", "19: criteria.error_rate: 2 is not allowed; a fraction"),
    "criterion as text": ("_10k: 50", "_10k: 50s", "19: criteria.cost_per_10k: '50s' is not allowed; an amount in U"),
    "enforce as text": ("enforce: true", 'enforce: "true"', "19: criteria.enforce: 'true' is not allowed; true or f"),
    "ttft in one piece": (
        "route: stream\n", "route: invoke\n",
        "19: criteria.ttft_mean: 'g5' answers in one piece (route: invoke); route: stream",
    ),
    "unknown report payload": ("{payload: short}", "{payload: shrot}", "20: report.payload: no such payload; did yo"),
    "fleet": ("region: us-west-2", "fleet: {actors: 0}", "2: fleet.actors: 0 is not allowed; at least 1"),
    "timeout": ("region: us-west-2", "timeouts: {idle: 60}", "2: timeouts.idle: 60 is not a duration; text with"),
}  # fmt: skip


@pytest.mark.parametrize("case", EDITS)
def test_a_wrong_value_is_named_with_its_line_its_key_and_what_is_allowed(write: Write, case: str) -> None:
    old, new, wanted = EDITS[case]
    text = GOOD.replace("latency_p95", "ttft_mean") if "ttft_mean" in wanted else GOOD
    assert old in text
    assert complaint(write, text.replace(old, new, 1)).startswith(f"bad.yaml:{wanted}")


@pytest.mark.parametrize("metric", ["ttft", "itl", "worst_gap", "tpot"])
def test_what_needs_a_reply_in_pieces_is_no_criterion_of_one_that_comes_whole(write: Write, metric: str) -> None:
    text = GOOD.replace("latency_p95", f"{metric}_p95")
    assert load_config(write(text)).criteria.limits[f"{metric}_p95"] == 5.0
    assert f"criteria.{metric}_p95: 'g5' answers in one piece" in complaint(
        write, text.replace("route: stream\n", "route: invoke\n")
    )


@pytest.mark.parametrize("name", ["Short", "payload_short", "short.jsonl"])
def test_two_things_of_one_name_are_refused(write: Write, name: str) -> None:
    """The report writes a payload without `payload_` and `.jsonl`."""
    second = f"  - {{name: {name}, dataset: {{synthetic: {{prompts: 1}}}}, tokens: [1, 9]}}\n"
    text = GOOD.replace("\nloads:\n", f"\n{second}loads:\n")
    assert complaint(write, text).startswith(
        f"bad.yaml:14: payloads[1].name: '{name}' is there already; names that differ"
    )


def test_an_endpoint_may_have_an_address_of_its_own(write: Write) -> None:
    for url in (
        "http://127.0.0.1:8080",
        "https://[::1]:8443/base",
        "https://runtime.sagemaker.us-west-2.amazonaws.com",
    ):
        endpoint = load_config(write(GOOD.replace("variant: blue", f'url: "{url}/"'))).experiments[0].endpoint
        assert endpoint == ExistingEndpoint(name="my-endpoint", url=url)


def test_a_password_in_an_address_is_not_repeated(write: Write) -> None:
    assert "secret" not in complaint(write, GOOD.replace("variant: blue", "url: http://me:secret@x"))


def test_the_topmost_of_several_mistakes_is_named(write: Write) -> None:
    text = GOOD.replace("us-west-2", "x").replace("60s", "60").replace("[1, 8]", "0")
    assert complaint(write, text).startswith("bad.yaml:2: region: ")


@pytest.mark.parametrize("name", ["no.yaml", ".", "a\0b", "x" * 5000])
def test_a_config_that_cannot_be_read_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="YAML file"):
        load_config(tmp_path / name)


def test_lines_are_counted_the_same_with_windows_line_ends_and_a_byte_order_mark(write: Write) -> None:
    assert load_config(write(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())).text == GOOD
    wrong = GOOD.replace("us-west-2", "x").replace("\n", "\r\n")
    assert complaint(write, wrong).startswith("bad.yaml:2: region: ")


TOKENS = st.sampled_from(
    [
        *re.findall(r"\w+|\W", GOOD),
        *"\n-?:,[]{}#&*!|>'\"%@`~",
        *(": ", "- ", "\n  ", "\n    ", "<<", "e5", ".e5", "0o7", "1e400", "-.inf", "null", "!!int", "&a", "*a", "-"),
        *("...", "é", "\u202e", "\x00", "\ufffe", "\ud800"),
    ]
)


def only_input_errors(write: Write, text: str) -> None:
    path = write(text.encode("utf-8", "surrogatepass"))
    try:
        config = load_config(path)
    except InputError as error:
        line = str(error)
    else:
        assert isinstance(config, Config)
        return
    assert re.match(rf"{re.escape(str(path))}:\d+: [^\n]+; [^\n]+$", line), line


BOUNDED = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@BOUNDED
@given(st.lists(TOKENS, max_size=40).map("".join))
def test_whatever_text_is_read_nothing_but_an_input_error_comes_out(write: Write, text: str) -> None:
    only_input_errors(write, text)


@BOUNDED
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 12), st.lists(TOKENS, max_size=4).map("".join))
def test_however_a_good_file_is_damaged_nothing_but_an_input_error_comes_out(
    write: Write, at: int, length: int, text: str
) -> None:
    only_input_errors(write, GOOD[:at] + text + GOOD[at + length :])


def test_a_folder_in_place_of_the_file_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory; a YAML file"):
        load_config(tmp_path)


SCALARS = st.none() | st.booleans() | st.integers(-2, 10**9) | st.floats(0, 2) | st.sampled_from(["5s", "x", "fixed"])
KEYS = st.sampled_from(["name", "simulate", "jsonl", "kind"])
VALUES = st.recursive(
    SCALARS, lambda some: st.lists(some, max_size=3) | st.dictionaries(KEYS, some, max_size=2), max_leaves=5
)


@BOUNDED
@given(st.sampled_from(re.findall(r"(?<=: )[^\n{}]+", GOOD)), VALUES)
def test_whatever_value_stands_anywhere_nothing_but_an_input_error_comes_out(
    write: Write, old: str, value: object
) -> None:
    flow = repr(value).replace("None", "null").replace("True", "true").replace("False", "false")
    only_input_errors(write, GOOD.replace(old, flow, 1))
