"""The client whole: replies read however they are cut, and the simulator's truth held against what we wrote down."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
import uvloop
from canned import cut, exception, part, reply
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Simulator, simulator
from world import whole

from raybench.client import dialects
from raybench.client.http import Failure, Reply
from raybench.client.sagemaker import SageMakerClient
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target, Timeouts
from raybench.clock import Clock
from raybench.errors import EndpointError
from raybench.rows import Exchange, Outcome, Prompt, Request
from raybench.virtual import VirtualNetwork, run_virtually

EVENTS = {"content-type": "application/vnd.amazon.eventstream"}
KEY = Credentials("AKID", "secret")
PROMPT = Prompt("Say it: 東京 naïve", 5, "estimate")
REQUEST = Request(b"{}", "hash", PROMPT, 12)
WORDS = ["Hi", " 東京", " 😀 naïve", ""]


def read(got: Reply, route: str = "stream", dialect: str = "tgi", **more: Any) -> Exchange:
    client = SageMakerClient(
        Target("http://127.0.0.1:1", "e", "us-west-2", route, dialect, KEY, **more), keep_text=True
    )
    return asyncio.run(client.read(REQUEST, got))


def tgi_records(words: Sequence[str]) -> list[bytes]:
    records: list[dict[str, Any]] = [{"token": {"id": 1, "text": word, "special": False}} for word in words]
    records[-1]["generated_text"] = "".join(words)
    records[-1]["details"] = {"generated_tokens": len(words), "finish_reason": "length"}
    return [b"data:" + orjson.dumps(record) + b"\n\n" for record in records]


def lmi_records(words: Sequence[str]) -> list[bytes]:
    return [record.removeprefix(b"data:").replace(b"\n\n", b"\n") for record in tgi_records(words)]


def openai_records(words: Sequence[str]) -> list[bytes]:
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
    records: list[Any] = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    records.append({"choices": [{"delta": {}, "finish_reason": "length"}]})
    records.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": len(words)}})
    return [b"data: " + orjson.dumps(record) + b"\n\n" for record in records] + [b"data: [DONE]\n\n"]


def jumpstart_records(words: Sequence[str]) -> list[bytes]:
    return [orjson.dumps({"outputs": [word]}) + b"\n" for word in words]


RECORDS: dict[str, Callable[[Sequence[str]], list[bytes]]] = {
    "tgi": tgi_records,
    "lmi": lmi_records,
    "openai": openai_records,
    "jumpstart": jumpstart_records,
}

PLACES = st.lists(st.integers(0), max_size=10)


@settings(max_examples=750, deadline=None)
@given(st.sampled_from(sorted(RECORDS)), st.booleans(), PLACES, PLACES)
def test_a_stream_reads_the_same_however_its_records_parts_and_bytes_are_cut(
    dialect: str, last_newline: bool, part_cuts: list[int], byte_cuts: list[int]
) -> None:
    stream = b"".join(RECORDS[dialect](WORDS))
    stream = stream if last_newline else stream.rstrip(b"\n")
    wire = b"".join(part(piece) for piece in cut(stream, part_cuts))
    said = read(reply(cut(wire, byte_cuts), headers=EVENTS), dialect=dialect)
    assert (said.outcome, said.completion) == (Outcome.OK, "".join(WORDS))
    assert said.completion_tokens == (6 if dialect == "jumpstart" else 4)
    assert said.chunk_tokens == ([1, 1, 1, 1] if dialect in ("tgi", "lmi") else None)
    assert len(said.chunk_ns) == (4 if dialect in ("tgi", "lmi") else 3)
    assert list(said.chunk_ns) == sorted(said.chunk_ns)
    assert (said.first_token_ns, said.last_token_ns) == (said.chunk_ns[0], said.chunk_ns[-1])
    assert said.response_bytes == len(wire)


@settings(max_examples=200, deadline=None)
@given(st.booleans(), PLACES)
def test_the_openai_route_reads_events_and_lines_without_frames(lines: bool, places: list[int]) -> None:
    stream = b"".join(openai_records(WORDS))
    if lines:
        stream = stream.replace(b"data: ", b"").replace(b"\n\n", b"\n")
    kind = "application/jsonlines" if lines else "text/event-stream; charset=utf-8"
    said = read(reply(cut(stream, places), headers={"content-type": kind}), "openai", "openai")
    assert (said.outcome, said.completion, said.completion_tokens) == (Outcome.OK, "".join(WORDS), 4)


def test_each_token_has_the_stamp_of_the_bytes_that_completed_it() -> None:
    first, second, third, last = (part(record) for record in tgi_records(["a", "b", "c", "d"]))
    said = read(reply([first[:20], first[20:] + second, third, last], headers=EVENTS))
    assert list(said.chunk_ns) == [2000, 2000, 3000, 4000]


@pytest.mark.parametrize("dialect", ["tgi", "lmi", "openai"])
def test_a_stream_without_its_terminal_record_is_truncated(dialect: str) -> None:
    records = RECORDS[dialect](["a", "b", "c"])
    whole_tokens = records[: records.index(next(r for r in records if b'"c"' in r))]
    said = read(reply([part(record) for record in whole_tokens], headers=EVENTS), dialect=dialect)
    assert (said.outcome, said.error_code, said.completion) == (Outcome.TRUNCATED, "NoTerminalRecord", "ab")


def test_a_jumpstart_stream_ends_cleanly_unless_it_ends_inside_a_record_or_says_nothing() -> None:
    whole = [part(record) for record in jumpstart_records(["a", "b"])]
    assert read(reply(whole, headers=EVENTS), dialect="jumpstart").outcome is Outcome.OK
    assert read(reply([*whole, part(b'{"outp')], headers=EVENTS), dialect="jumpstart").outcome is Outcome.TRUNCATED
    assert read(reply([*whole, whole[0][:30]], headers=EVENTS), dialect="jumpstart").outcome is Outcome.TRUNCATED
    assert read(reply([], headers=EVENTS), dialect="jumpstart").outcome is Outcome.TRUNCATED


def test_an_exception_frame_keeps_the_tokens_before_it() -> None:
    fault = exception("ModelStreamError", b'{"Message":"late","ErrorCode":"ModelInvocationTimeExceeded"}')
    said = read(reply([part(record) for record in tgi_records(["a", "b", "c"])[:2]] + [fault], headers=EVENTS))
    assert (said.outcome, said.error_code) == (Outcome.STREAM_ERROR, "ModelInvocationTimeExceeded")
    assert said.error_message == "ModelStreamError: late"
    assert (said.completion, said.first_token_ns, said.completion_tokens) == ("ab", 1000, 2)


def test_an_error_record_in_a_stream_keeps_the_tokens_before_it() -> None:
    broken = part(b'data:{"error":"CUDA","error_type":"generation"}\n\n')
    said = read(reply([part(tgi_records(["a", "b"])[0]), broken], headers=EVENTS))
    assert (said.outcome, said.error_code, said.error_message) == (Outcome.STREAM_ERROR, "generation", "CUDA")
    assert said.completion == "a"


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(Failure.CUT, Outcome.TRUNCATED), (Failure.IDLE_TIMEOUT, Outcome.CLIENT_TIMEOUT)],
)
def test_a_broken_stream_keeps_its_tokens(failure: Failure, outcome: Outcome) -> None:
    pieces = [part(tgi_records(["a", "b"])[0]), part(b'data:{"tok')[:-3]]
    said = read(reply(pieces, failure=failure, headers=EVENTS))
    assert (said.outcome, said.error_code, said.completion) == (outcome, failure.value, "a")
    assert said.first_token_ns == 1000


def test_a_whole_reply_cut_in_its_body_is_a_connection_error() -> None:
    assert read(reply([b'[{"gen'], failure=Failure.CUT), "invoke").outcome is Outcome.CONNECTION_ERROR


@pytest.mark.parametrize(
    "pieces",
    [
        [part(tgi_records(["a", "b"])[0]), b"\x00" * 40],
        [part(tgi_records(["a", "b"])[0]), part(b"data:{broken}\n\n")],
        [part(tgi_records(["a", "b"])[0]), *[part(b"x" * 2**20)] * 10],
    ],
    ids=["bad checksum", "bad JSON", "a record of 10 MiB"],
)
def test_a_malformed_stream_is_a_protocol_error_that_keeps_its_tokens(pieces: list[bytes]) -> None:
    said = read(reply(pieces, headers=EVENTS))
    assert (said.outcome, said.completion) == (Outcome.PROTOCOL_ERROR, "a")


@pytest.mark.parametrize("route", ["invoke", "stream"])
def test_a_success_with_an_error_body_is_a_failure(route: str) -> None:
    said = read(reply([b'{"error":"CUDA out of memory"}'], headers={"content-type": "application/json"}), route)
    assert (said.outcome, said.error_message) == (Outcome.MODEL_ERROR, "CUDA out of memory")


def test_a_success_that_cannot_be_read_is_a_protocol_error_and_no_completion() -> None:
    said = read(reply([b"<html>"]), "invoke")
    assert (said.outcome, said.error_code, said.completion_tokens) == (Outcome.PROTOCOL_ERROR, "MalformedBody", None)


def test_a_completion_that_begins_with_its_prompt_is_flagged() -> None:
    echo = orjson.dumps([{"generated_text": f" {PROMPT.text} and more"}])
    plain = orjson.dumps([{"generated_text": "and more"}])
    assert read(reply([echo]), "invoke").echoed_prompt is True
    assert read(reply([plain]), "invoke").echoed_prompt is False


def test_tokens_nobody_counted_are_estimated_and_say_so() -> None:
    said = read(reply([b'[{"generated_text":"one two three"}]']), "invoke")
    assert (said.completion_tokens, said.completion_tokens_source) == (4, "estimate")
    assert (said.first_token_ns, said.chunk_tokens) == (None, None)


def test_text_is_kept_only_when_asked() -> None:
    client = SageMakerClient(Target("http://127.0.0.1:1", "e", "us-west-2", credentials=KEY))
    said = asyncio.run(client.read(REQUEST, reply([b'[{"generated_text":"secret"}]'])))
    assert (said.completion, said.completion_tokens) == (None, 2)


def test_reading_gives_the_loop_back_every_few_records() -> None:
    async def main() -> tuple[int, int]:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        client = SageMakerClient(Target("http://127.0.0.1:1", "e", "us-west-2", "stream", credentials=KEY))
        wire = b"".join(part(record) for record in tgi_records(["x"] * 400))
        task = asyncio.ensure_future(other())
        said = await client.read(REQUEST, reply([wire], headers=EVENTS))
        task.cancel()
        return turns, said.completion_tokens or 0

    turns, tokens = asyncio.run(main())
    assert tokens == 400
    assert turns >= 400 // 32


# Against the simulator, in another process


def request_for(target: Target, tokens: int = 6) -> Request:
    text = dialects.body(target.dialect, PROMPT.text, {"max_new_tokens": tokens}, target.streams)
    return Request(text, "hash", PROMPT, tokens)


def played(
    simulated: Simulator, endpoint: str, requests: int = 1, connections: int = 1, **more: Any
) -> list[Exchange]:
    """`requests` at once, each read when it has ended."""
    keys = Credentials(simulated.credentials.access_key, simulated.credentials.secret_key)
    settings: dict[str, Any] = {"credentials": keys, "region": simulated.credentials.region, **more}
    target = Target(simulated.url, endpoint, **settings)

    async def main() -> list[Exchange]:
        client = SageMakerClient(target, keep_text=True)
        await client.open(connections)
        request = request_for(target)

        async def one() -> Exchange:
            return await client.read(request, await client.send(request))

        exchanges = await asyncio.gather(*[one() for _ in range(requests)])
        await client.close()
        return exchanges

    return uvloop.run(main())


FAST = {"ttft_s": 0.02, "itl_s": 0.005, "tokens": 6}


def endpoint(script: Sequence[str | None] = (), **faults: Any) -> dict[str, Any]:
    return {"profile": "fixed", "overrides": FAST, "faults": {"script": list(script), **faults}}


@pytest.fixture(scope="module")
def simulated() -> Any:
    kinds = ["throttle", "model_error", "unavailable", "stream_error", "stream_failure", "cut", "truncate", "hang"]
    endpoints = {f"{route}-{kind}": endpoint([kind]) for route in ("stream", "invoke") for kind in kinds}
    lmi = {"profile": "fixed", "overrides": {**FAST, "dialect": "lmi"}, "faults": {"split": 0.5}}
    with simulator({"plain": endpoint(), "split": endpoint(split=0.7), "lmi": lmi, **endpoints}) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "route", "dialect"),
    [
        ("plain", "invoke", "tgi"),
        ("plain", "stream", "tgi"),
        ("split", "stream", "tgi"),
        ("lmi", "invoke", "lmi"),
        ("lmi", "stream", "lmi"),
        ("plain", "invoke", "openai"),
        ("split", "stream", "openai"),
        ("split", "openai", "openai"),
    ],
)
def test_every_row_agrees_with_the_simulators_truth(
    simulated: Simulator, name: str, route: str, dialect: str
) -> None:
    exchanges = played(simulated, name, 8, 8, route=route, dialect=dialect)
    truth = {row["request_id"]: row for row in simulated.truth()}
    assert len({said.request_id for said in exchanges}) == 8
    for said in exchanges:
        did = truth[said.request_id]
        assert (said.outcome, said.http_status, said.variant) == (Outcome.OK, 200, "AllTraffic")
        assert (said.completion_tokens, said.completion_tokens_source) == (6, "server")
        assert said.prompt_tokens in (did["prompt_tokens"], None)
        assert said.sent_ns is not None
        assert said.end_ns is not None
        assert said.sent_ns <= did["arrived_ns"]
        assert said.end_ns >= did["chunks"][-1][0]
        if route != "invoke":
            assert said.first_token_ns is not None
            # the truth of a split record is the instant of its newline, which may come after all it says
            assert name == "split" or said.first_token_ns >= did["chunks"][0][0]
            assert len(said.chunk_ns) == 6


def test_connections_opened_before_the_clock_are_the_only_ones(simulated: Simulator) -> None:
    before = {row["connection"] for row in simulated.truth()}
    exchanges = [said for _ in range(2) for said in played(simulated, "plain", 4, 4)]
    ids = {said.request_id for said in exchanges}
    used = {row["connection"] for row in simulated.truth() if row["request_id"] in ids}
    assert len(used - before) == 8
    assert all(said.connection_reused for said in exchanges)


def test_a_connection_opened_for_want_of_one_says_so(simulated: Simulator) -> None:
    assert sorted(bool(said.connection_reused) for said in played(simulated, "plain", 3, 1)) == [False, False, True]


@pytest.mark.parametrize(
    ("kind", "outcome", "status", "code"),
    [
        ("throttle", Outcome.THROTTLED, 400, "ThrottlingException"),
        ("model_error", Outcome.MODEL_ERROR, 424, "ModelError"),
        ("unavailable", Outcome.MODEL_ERROR, 503, "ServiceUnavailable"),
        ("stream_error", Outcome.STREAM_ERROR, 200, None),
        ("stream_failure", Outcome.STREAM_ERROR, 200, "InternalStreamFailure"),
        ("cut", Outcome.TRUNCATED, 200, "ConnectionCut"),
        ("truncate", Outcome.TRUNCATED, 200, "NoTerminalRecord"),
        ("hang", Outcome.CLIENT_TIMEOUT, 200, "IdleTimeout"),
    ],
)
def test_one_fault_is_one_row_and_one_request_on_the_wire(
    simulated: Simulator, kind: str, outcome: Outcome, status: int, code: str | None
) -> None:
    before = len(simulated.truth())
    [said] = played(simulated, f"stream-{kind}", route="stream", timeouts=Timeouts(idle_s=0.3))
    assert (said.outcome, said.http_status) == (outcome, status)
    assert said.error_code == code or code is None
    if status == 200:
        assert said.first_token_ns is not None
        assert said.completion
    if kind != "hang":
        assert len(simulated.truth()) == before + 1


@pytest.mark.parametrize("kind", ["throttle", "model_error", "unavailable", "cut", "hang"])
def test_a_whole_reply_that_fails_is_one_row(simulated: Simulator, kind: str) -> None:
    [said] = played(simulated, f"invoke-{kind}", timeouts=Timeouts(invoke_s=0.5))
    assert (
        said.outcome
        is {
            "throttle": Outcome.THROTTLED,
            "model_error": Outcome.MODEL_ERROR,
            "unavailable": Outcome.MODEL_ERROR,
            "cut": Outcome.CONNECTION_ERROR,
            "hang": Outcome.CLIENT_TIMEOUT,
        }[kind]
    )


@pytest.mark.parametrize(("route", "dialect"), [("invoke", "tgi"), ("stream", "tgi"), ("openai", "openai")])
def test_a_wrong_secret_is_rejected(simulated: Simulator, route: str, dialect: str) -> None:
    keys = Credentials(simulated.credentials.access_key, "wrong")
    [said] = played(simulated, "plain", route=route, dialect=dialect, credentials=keys)
    assert (said.outcome, said.http_status) == (Outcome.REJECTED, 403)


def test_without_credentials_botocores_chain_is_asked(simulated: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", simulated.credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", simulated.credentials.secret_key)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    [said] = played(simulated, "plain", credentials=None)
    assert said.outcome is Outcome.OK


def test_credentials_that_changed_sign_from_the_next_refresh_on(simulated: Simulator) -> None:
    keys = [Credentials("AKIDOTHER", "other"), Credentials(*simulated.credentials[:2])]
    target = Target(simulated.url, "plain", simulated.credentials.region)

    async def main() -> list[Outcome]:
        client = SageMakerClient(target, provider=lambda: lambda: keys.pop(0))
        await client.open(1)
        request, outcomes = request_for(target), []
        for _ in range(2):
            outcomes.append((await client.read(request, await client.send(request))).outcome)
            if keys:
                await client.refresh_if_due()
        await client.close()
        return outcomes

    assert asyncio.run(main()) == [Outcome.REJECTED, Outcome.OK]


def test_a_cancelled_request_takes_its_connection_with_it(simulated: Simulator) -> None:
    target = Target(
        simulated.url, "plain", simulated.credentials.region, credentials=Credentials(*simulated.credentials[:2])
    )

    async def main() -> Exchange:
        client = SageMakerClient(target)
        await client.open(1)
        request = request_for(target)
        sending = asyncio.ensure_future(client.send(request))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        said = await client.read(request, await client.send(request))
        await client.close()
        return said

    said = asyncio.run(main())
    assert (said.outcome, said.connection_reused) == (Outcome.OK, False)


def test_an_endpoint_that_does_not_exist_is_rejected_by_name(simulated: Simulator) -> None:
    [said] = played(simulated, "nowhere")
    assert (said.outcome, said.http_status, said.error_code) == (Outcome.REJECTED, 400, "ValidationError")
    assert "nowhere" in (said.error_message or "")


def test_nobody_listening_is_one_clear_line_when_opening_and_a_row_when_sending() -> None:
    target = Target("http://127.0.0.1:9", "e", "us-west-2", credentials=KEY)

    async def main() -> Exchange:
        client = SageMakerClient(target)
        with pytest.raises(EndpointError, match=r"^endpoint 'e': 127\.0\.0\.1:9: Connection refused$"):
            await client.open(2)
        return await client.read(REQUEST, await client.send(REQUEST))

    said = asyncio.run(main())
    assert (said.outcome, said.error_code) == (Outcome.CONNECTION_ERROR, "ConnectFailed")
    assert (said.sent_ns, said.connection_reused) == (None, False)


def test_one_request_at_a_time_needs_one_connection_however_many_are_open() -> None:
    used = set[int]()

    class Peer(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            used.add(id(self))
            self.transport.write(whole())

    async def main(clock: Clock) -> None:
        await network.create_server(Peer, "peer.test", 80)
        client = SageMakerClient(Target("http://peer.test:80", "e", "us-west-2", credentials=KEY), clock=clock)
        await client.open(64)
        for _ in range(100):
            assert (await client.send(REQUEST)).status == 200
        await client.close()

    network = VirtualNetwork()
    run_virtually(main, network)
    assert len(used) == 1
