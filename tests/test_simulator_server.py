"""The simulator as its callers see it: a process of its own, over the real wire, mostly through boto3."""

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic_ns
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError, ReadTimeoutError
from simulated import Simulator, simulator

FAST = {"ttft_s": 0.01, "itl_s": 0.002, "tokens": 12}
TEXT = "one two three"


def fixed(faults: dict[str, Any] | None = None, **overrides: Any) -> dict[str, Any]:
    return {"profile": "fixed", "overrides": {**FAST, **overrides}, "faults": faults or {}, "seed": 7}


ENDPOINTS = {
    "tgi": fixed(),
    "lmi": fixed(dialect="lmi"),
    "jumpstart": fixed(dialect="jumpstart"),
    "chat": fixed(dialect="openai"),
    "chunky": fixed(tokens_per_chunk=5),
    "split": fixed({"split": 0.7}, tokens=60),
    "echo": fixed(echo_prompt=True),
    "short": fixed(context_tokens=100),
    "slow": fixed(ttft_s=0.1, itl_s=0.1, unary_cap_s=0.05, stream_cap_s=0.25),
    "patient": fixed(ttft_s=10.0),
    "busy": {
        "profile": "llama2-70b-p4d-tgi",
        "overrides": {
            **{"tokens": 20, "jitter": 0.0, "prefill_ms": 0.0, "step_ms": 20.0, "sequence_ms": 0.0},
            **{"waiting_ratio": 99.0, "steps_before_prefill": 99, "unary_cap_s": 0.05},
        },
    },
    "llama": {"profile": "llama2-70b-p4d-tgi", "overrides": {"step_ms": 1.0, "tokens": 5}},
    **{fault: fixed({fault: 1.0}) for fault in ("throttle", "model_error", "unavailable", "stream_error")},
    **{fault: fixed({fault: 1.0}, stream_cap_s=0.2, unary_cap_s=0.2) for fault in ("stream_failure", "cut", "hang")},
    "truncate": fixed({"truncate": 1.0}),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator(ENDPOINTS) as running:
        yield running


@contextmanager
def client(server: Simulator, **changed: str) -> Iterator[Any]:
    keys = {**server.credentials._asdict(), **changed}
    boto = boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name=keys["region"],
        aws_access_key_id=keys["access_key"],
        aws_secret_access_key=keys["secret_key"],
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}, read_timeout=5),
    )
    try:
        yield boto
    finally:
        boto.close()


@pytest.fixture(scope="module")
def boto(server: Simulator) -> Iterator[Any]:
    with client(server) as boto:
        yield boto


def tgi(stream: bool = False, **parameters: Any) -> bytes:
    return json.dumps({"inputs": TEXT, "parameters": {"details": True, **parameters}, "stream": stream}).encode()


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "", "messages": [{"role": "user", "content": TEXT}], **fields}).encode()


def call(boto: Any, endpoint: str, body: bytes) -> Any:
    return boto.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=body)


def stream(boto: Any, endpoint: str, body: bytes) -> Any:
    return boto.invoke_endpoint_with_response_stream(EndpointName=endpoint, ContentType="application/json", Body=body)


def parts(reply: Any) -> Iterator[bytes]:
    with closing(reply["Body"]) as events:
        for event in events:
            yield event["PayloadPart"]["Bytes"]


def until_broken(reply: Any) -> tuple[list[bytes], EventStreamError]:
    """What came before the exception, and the exception."""
    received: list[bytes] = []
    try:
        received += (part for part in parts(reply))
    except EventStreamError as failure:
        return received, failure
    raise AssertionError("the stream did not break")


def truth_of(server: Simulator, reply: Any) -> dict[str, Any]:
    meta = getattr(reply, "response", reply)["ResponseMetadata"]
    (record,) = [record for record in server.truth() if record["request_id"] == meta["RequestId"]]
    return record


# replies


def test_boto3_reads_a_tgi_reply_its_request_id_and_its_variant(server: Simulator, boto: Any) -> None:
    reply = call(boto, "tgi", tgi(max_new_tokens=8))
    (said,) = json.loads(reply["Body"].read())
    assert len(said["generated_text"].split()) == 8
    assert said["details"]["generated_tokens"] == 8
    assert said["details"]["input_length"] == 4, "three words are four tokens by the estimate"
    assert said["details"]["finish_reason"] == "length"
    assert reply["InvokedProductionVariant"] == "AllTraffic"
    assert reply["ContentType"] == "application/json"
    truth = truth_of(server, reply)
    assert (truth["status"], truth["outcome"], truth["endpoint"]) == (200, "ok", "tgi")
    assert (truth["prompt_tokens"], truth["completion_tokens"]) == (4, 8)


def test_boto3_reads_an_lmi_reply(boto: Any) -> None:
    said = json.loads(call(boto, "lmi", tgi())["Body"].read())
    assert said["details"] == {"finish_reason": "eos_token", "generated_tokens": 12, "input_length": 4}


def test_boto3_reads_a_chat_reply(boto: Any) -> None:
    said = json.loads(call(boto, "tgi", chat(max_tokens=100))["Body"].read())
    assert said["usage"] == {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16}
    assert said["choices"][0]["finish_reason"] == "stop", "the natural end comes before the limit"


def test_boto3_reads_a_tgi_stream(server: Simulator, boto: Any) -> None:
    reply = stream(boto, "tgi", tgi(stream=True))
    records = [json.loads(part.removeprefix(b"data:")) for part in parts(reply)]
    assert [record["index"] for record in records] == list(range(1, 13))
    assert records[-1]["generated_text"] == "".join(record["token"]["text"] for record in records)
    assert records[-1]["details"]["generated_tokens"] == 12
    assert reply["ContentType"] == "text/event-stream"
    assert truth_of(server, reply)["chunks"][-1][1] == 1


def test_boto3_reads_an_lmi_stream_whose_last_line_is_open(boto: Any) -> None:
    text = b"".join(parts(stream(boto, "lmi", tgi(stream=True))))
    assert not text.endswith(b"\n")
    records = [json.loads(line) for line in text.split(b"\n")]
    assert len(records) == 12
    assert records[-1]["details"]["generated_tokens"] == 12


def test_boto3_reads_a_chat_stream_with_usage_and_done(boto: Any) -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    lines = b"".join(parts(stream(boto, "tgi", body))).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    records = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert records[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert sum(bool(r["choices"] and r["choices"][0]["delta"].get("content")) for r in records) == 12
    assert records[-2]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert records[-1]["choices"] == []
    assert records[-1]["usage"]["completion_tokens"] == 12


def test_boto3_reads_a_jumpstart_reply_and_stream(boto: Any) -> None:
    (said,) = json.loads(call(boto, "jumpstart", tgi())["Body"].read())
    lines = b"".join(parts(stream(boto, "jumpstart", tgi()))).splitlines()
    assert len(lines) == len(said["generated_text"].split()) == 12
    assert all(len(json.loads(line)["outputs"]) == 1 for line in lines)


def test_a_chat_endpoint_takes_messages_only(boto: Any) -> None:
    assert json.loads(call(boto, "chat", chat())["Body"].read())["usage"]["completion_tokens"] == 12
    with pytest.raises(boto.exceptions.ModelError, match="messages: field required"):
        call(boto, "chat", tgi())


def test_a_stream_that_was_not_asked_to_stream_is_one_part(boto: Any) -> None:
    (part,) = parts(stream(boto, "tgi", tgi()))
    assert json.loads(part)[0]["details"]["generated_tokens"] == 12


def test_several_tokens_share_a_part(server: Simulator, boto: Any) -> None:
    reply = stream(boto, "chunky", tgi(stream=True))
    assert [part.count(b"data:") for part in parts(reply)] == [5, 5, 2]
    assert [tokens for _, tokens in truth_of(server, reply)["chunks"]] == [5, 5, 2]


def test_split_records_come_whole_when_joined(server: Simulator, boto: Any) -> None:
    reply = stream(boto, "split", tgi(stream=True))
    received = list(parts(reply))
    assert any(not part.endswith(b"\n\n") for part in received)
    records = [json.loads(line[5:]) for line in b"".join(received).split(b"\n\n") if line]
    assert [record["index"] for record in records] == list(range(1, 61))
    assert sum(tokens for _, tokens in truth_of(server, reply)["chunks"]) == 60


def test_a_prompt_is_echoed_where_the_endpoint_or_the_body_asks(boto: Any) -> None:
    assert json.loads(call(boto, "echo", tgi())["Body"].read())[0]["generated_text"].startswith(TEXT)
    assert json.loads(call(boto, "tgi", tgi(return_full_text=True))["Body"].read())[0]["generated_text"].startswith(
        TEXT
    )


def test_a_batching_endpoint_answers(server: Simulator, boto: Any) -> None:
    reply = stream(boto, "llama", tgi(stream=True))
    assert len(list(parts(reply))) == 5
    assert truth_of(server, reply)["outcome"] == "ok"


# errors


def test_an_unknown_endpoint_is_a_validation_error(server: Simulator, boto: Any) -> None:
    with pytest.raises(boto.exceptions.ValidationError) as failure:
        call(boto, "nope", b"{}")
    assert failure.value.response["Error"]["Message"] == "Endpoint nope of account 000000000000 not found."
    assert truth_of(server, failure.value)["outcome"] == "rejected"


def test_a_throttle_names_itself_in_the_header_alone(server: Simulator, boto: Any) -> None:
    for invoke in (call, stream):
        with pytest.raises(ClientError) as failure:
            invoke(boto, "throttle", tgi())
        assert failure.value.response["Error"]["Code"] == "ThrottlingException"
        assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    status, _, body = signed_post(server, "/endpoints/throttle/invocations", tgi())
    assert (status, body) == (400, b'{"message":null}')
    assert truth_of(server, failure.value)["outcome"] == "throttled"


@pytest.mark.parametrize("invoke", [call, stream])
def test_a_model_error_carries_what_the_container_said(boto: Any, invoke: Any) -> None:
    with pytest.raises(boto.exceptions.ModelError) as failure:
        invoke(boto, "model_error", tgi())
    response = failure.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == 500
    assert "CUDA out of memory" in response["OriginalMessage"]
    assert response["LogStreamArn"].startswith("arn:aws:logs:us-west-2:")


def test_an_unavailable_service_is_typed(boto: Any) -> None:
    with pytest.raises(boto.exceptions.ServiceUnavailable):
        call(boto, "unavailable", tgi())


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"{}", b'{"inputs": 3}', b'{"messages": [3]}', tgi(max_new_tokens=0), tgi(max_new_tokens="x")],
)
def test_a_body_the_container_cannot_read_is_its_422(boto: Any, body: bytes) -> None:
    with pytest.raises(boto.exceptions.ModelError) as failure:
        call(boto, "tgi", body)
    assert failure.value.response["OriginalStatusCode"] == 422


def test_a_prompt_beyond_the_context_is_the_containers_422(boto: Any) -> None:
    assert call(boto, "short", tgi(max_new_tokens=96))
    with pytest.raises(boto.exceptions.ModelError, match="must be <= 100"):
        call(boto, "short", tgi(max_new_tokens=97))


def test_the_cap_of_a_reply_is_a_model_error_with_original_status_zero(server: Simulator, boto: Any) -> None:
    with pytest.raises(boto.exceptions.ModelError, match="timed out") as failure:
        call(boto, "slow", tgi())
    assert failure.value.response["OriginalStatusCode"] == 0
    assert truth_of(server, failure.value)["outcome"] == "server_timeout"


def test_the_engine_works_on_after_the_cap_and_keeps_others_waiting(server: Simulator, boto: Any) -> None:
    with pytest.raises(boto.exceptions.ModelError) as failure:
        call(boto, "busy", tgi())
    reply = stream(boto, "busy", tgi(stream=True))
    assert len(list(parts(reply))) == 20
    first, second = truth_of(server, failure.value), truth_of(server, reply)
    assert first["outcome"] == "server_timeout"
    assert second["started_ns"] - first["arrived_ns"] >= 19 * 20_000_000


def test_the_cap_of_a_stream_is_an_exception_frame_that_keeps_its_error_code(server: Simulator, boto: Any) -> None:
    reply = stream(boto, "slow", tgi(stream=True))
    with pytest.raises(EventStreamError) as failure:
        list(parts(reply))
    assert failure.value.response["Error"]["Code"] == "ModelStreamError"
    assert truth_of(server, reply)["completion_tokens"] in (1, 2)
    _, _, body = signed_post(server, "/endpoints/slow/invocations-response-stream", tgi(stream=True))
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    assert json.loads(list(buffer)[-1].payload)["ErrorCode"] == "ModelInvocationTimeExceeded"


@pytest.mark.parametrize(
    ("endpoint", "code"), [("stream_error", "ModelStreamError"), ("stream_failure", "InternalStreamFailure")]
)
def test_a_stream_that_breaks_says_so_after_some_tokens(
    server: Simulator, boto: Any, endpoint: str, code: str
) -> None:
    reply = stream(boto, endpoint, tgi(stream=True))
    received, failure = until_broken(reply)
    assert failure.response["Error"]["Code"] == code
    truth = truth_of(server, reply)
    assert truth["outcome"] == "stream_error"
    assert 1 <= truth["completion_tokens"] == len(received) < 12


def test_the_same_faults_without_a_stream_are_plain_errors(boto: Any) -> None:
    with pytest.raises(boto.exceptions.ModelError):
        call(boto, "stream_error", tgi())
    with pytest.raises(boto.exceptions.InternalFailure):
        call(boto, "stream_failure", tgi())
    with pytest.raises(boto.exceptions.ModelError, match="timed out"):
        call(boto, "hang", tgi())
    with pytest.raises(json.JSONDecodeError):
        json.loads(call(boto, "truncate", tgi())["Body"].read())


def test_a_silent_truncation_ends_cleanly_without_the_last_record(server: Simulator, boto: Any) -> None:
    reply = stream(boto, "truncate", tgi(stream=True))
    received = list(parts(reply))
    assert 1 <= len(received) < 12
    assert b'"generated_text":null' in received[-1]
    assert truth_of(server, reply)["outcome"] == "truncated"


@pytest.mark.parametrize("route", ["invocations", "invocations-response-stream"])
def test_a_cut_connection_breaks_off_inside_the_body(server: Simulator, route: str) -> None:
    with pytest.raises(http.client.IncompleteRead):
        signed_post(server, f"/endpoints/cut/{route}", tgi(stream=True))
    assert server.truth()[-1]["outcome"] == "connection_error"


def test_a_hanging_stream_says_nothing_after_its_first_token(server: Simulator, boto: Any) -> None:
    reply = stream(boto, "hang", tgi(stream=True))
    with pytest.raises((EventStreamError, ReadTimeoutError)):
        list(parts(reply))
    truth = truth_of(server, reply)
    assert truth["completion_tokens"] == 1
    assert truth["ended_ns"] - truth["arrived_ns"] >= 200_000_000


# credentials


def signed_post(
    server: Simulator, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One signed request by hand; `headers` instead of a signature, if given."""
    if headers is None:
        keys = server.credentials
        request = AWSRequest("POST", server.url + path, data=body)
        SigV4Auth(Credentials(keys.access_key, keys.secret_key), "sagemaker", keys.region).add_auth(request)
        headers = dict(request.headers)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=5)
    try:
        connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def token(server: Simulator, expires_s: int = 3600) -> dict[str, str]:
    keys = server.credentials
    request = AWSRequest(
        "POST",
        "https://sagemaker.amazonaws.com/",
        headers={"host": "sagemaker.amazonaws.com"},
        params={"Action": "CallWithBearerToken"},
    )
    credentials = Credentials(keys.access_key, keys.secret_key)
    SigV4QueryAuth(credentials, "sagemaker", keys.region, expires=expires_s).add_auth(request)
    url = request.url.removeprefix("https://") + "&Version=1"
    return {"Authorization": "Bearer sagemaker-api-key-" + base64.b64encode(url.encode()).decode()}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"secret_key": "wrong"}, "InvalidSignatureException"),
        ({"access_key": "AKIDWRONG"}, "UnrecognizedClientException"),
        ({"region": "eu-west-1"}, "InvalidSignatureException"),
    ],
)
@pytest.mark.parametrize("invoke", [call, stream])
def test_wrong_credentials_are_403(server: Simulator, invoke: Any, changed: dict[str, str], code: str) -> None:
    with client(server, **changed) as stranger, pytest.raises(ClientError) as failure:
        invoke(stranger, "tgi", tgi())
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert failure.value.response["Error"]["Code"] == code
    assert truth_of(server, failure.value)["status"] == 403


def test_no_credentials_are_403(server: Simulator) -> None:
    status, headers, body = signed_post(server, "/endpoints/tgi/invocations", tgi(), headers={})
    assert status == 403
    assert headers["x-amzn-ErrorType"].startswith("MissingAuthenticationTokenException")
    assert json.loads(body) == {"message": "Missing Authentication Token"}


CHAT = "/endpoints/tgi/openai/v1/chat/completions"


@pytest.mark.parametrize("path", [CHAT, CHAT.replace("tgi", "tgi/inference-components/one")])
def test_the_openai_route_takes_a_bearer_token(server: Simulator, path: str) -> None:
    status, headers, body = signed_post(server, path, chat(max_tokens=5), token(server))
    assert status == 200
    assert json.loads(body)["usage"]["completion_tokens"] == 5
    assert headers["x-amzn-RequestId"] == server.truth()[-1]["request_id"]


def test_the_openai_route_streams_server_sent_events(server: Simulator) -> None:
    status, headers, body = signed_post(server, CHAT, chat(stream=True), token(server))
    assert (status, headers["Content-Type"]) == (200, "text/event-stream")
    assert body.endswith(b"data: [DONE]\n\n")


def test_the_openai_route_refuses_signatures_and_strangers(server: Simulator) -> None:
    stranger = token(Simulator(server.url, server.credentials._replace(secret_key="x"), server.truth_file))
    for headers in (None, {}, stranger):
        status, _, body = signed_post(server, CHAT, chat(), headers)
        assert status == 403
        assert json.loads(body)["error"]["message"]


def test_the_openai_route_says_errors_in_its_own_shape(server: Simulator) -> None:
    for endpoint, status, code in (("model_error", 424, "model_error"), ("nope", 400, "validation_error")):
        got, _, body = signed_post(server, CHAT.replace("tgi", endpoint), chat(), token(server))
        assert (got, json.loads(body)["error"]["code"]) == (status, code)
    headers = {**token(server), "X-Amzn-SageMaker-Inference-Component": "one"}
    assert signed_post(server, CHAT, chat(), headers)[0] == 400


# the wire


def test_one_connection_carries_many_requests_in_order_even_when_they_are_pipelined(server: Simulator) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    keys = server.credentials
    packets = b""
    for tokens in (3, 2, 1):
        path, body = "/endpoints/tgi/invocations", tgi(max_new_tokens=tokens)
        request = AWSRequest("POST", server.url + path, data=body, headers={"Content-Length": str(len(body))})
        SigV4Auth(Credentials(keys.access_key, keys.secret_key), "sagemaker", keys.region).add_auth(request)
        headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        packets += f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{headers}\r\n".encode() + body
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(packets)
        received = b""
        while received.count(b"generated_tokens") < 3:
            received += connection.recv(65536)
    assert re.findall(rb'"generated_tokens":(\d)', received) == [b"3", b"2", b"1"]
    assert len({record["connection"] for record in server.truth()[-3:]}) == 1


def test_nobody_reads_a_token_before_it_was_sent(server: Simulator, boto: Any) -> None:
    asked = monotonic_ns()
    reply = stream(boto, "tgi", tgi(stream=True))
    seen = [monotonic_ns() for _ in parts(reply)]
    truth = truth_of(server, reply)
    sent = [instant for instant, _ in truth["chunks"]]
    assert asked <= truth["arrived_ns"] <= truth["started_ns"] <= sent[0]
    assert sent == sorted(sent)
    assert sent[-1] == truth["ended_ns"]
    assert all(there <= here for there, here in zip(sent, seen, strict=True))


def test_a_caller_that_hangs_up_is_a_client_timeout_in_the_truth(server: Simulator) -> None:
    with client(server) as boto:
        reply = stream(boto, "patient", tgi(stream=True))
        reply["Body"].close()
    deadline = monotonic_ns() + 5_000_000_000
    while not any(r["request_id"] == reply["ResponseMetadata"]["RequestId"] for r in server.truth()):
        assert monotonic_ns() < deadline
    assert truth_of(server, reply)["outcome"] == "client_timeout"


@pytest.mark.parametrize(
    "junk", [b"\x00\xff" * 50, b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_junk_is_answered_with_400_and_the_server_goes_on(server: Simulator, boto: Any, junk: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(junk)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert call(boto, "tgi", tgi())


def test_a_body_over_25_mb_is_413(server: Simulator) -> None:
    status, _, _ = signed_post(server, "/endpoints/tgi/invocations", b"x" * (25 * 1024 * 1024 + 1), headers={})
    assert status == 413


def test_an_unknown_path_is_404(server: Simulator) -> None:
    assert signed_post(server, "/endpoints/tgi/invocation", b"", headers={})[0] == 404


def test_health_tells_the_servers_own_load(server: Simulator, boto: Any) -> None:
    before = server.health()
    list(parts(stream(boto, "tgi", tgi(stream=True))))
    after = server.health()
    assert after["events"] == before["events"] + 12
    assert after["requests"] == before["requests"] + 1
    assert after["cpu_s"] >= before["cpu_s"]
    assert after["cpu_share"] >= 0
    assert after["lag_p99_ms"] >= 0


# the process


def test_request_ids_and_faults_follow_from_the_seed() -> None:
    def replay() -> list[tuple[str, str]]:
        with simulator({"tgi": fixed({"throttle": 0.5})}) as server:
            for _ in range(10):
                signed_post(server, "/endpoints/tgi/invocations", tgi())
            return [(record["request_id"], record["outcome"]) for record in server.truth()]

    first = replay()
    assert first == replay()
    assert {outcome for _, outcome in first} == {"ok", "throttled"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "unexpected end of data"),
        ('{"endpoint": {}}', "endpoint: unknown key; endpoints, "),
        ('{"endpoints": {"e": {"profile": "nope"}}}', "unknown profile nope"),
        ('{"endpoints": {"e": {"profil": "fixed"}}}', "endpoints.e.profil: unknown key"),
    ],
)
def test_a_wrong_config_is_one_line_and_exit_2(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    command = [sys.executable, "-m", "raybench.simulator", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_simulate_prints_how_to_call_it_and_the_call_works() -> None:
    command = [sys.executable, "-c", "from raybench.simulator.launch import simulate; simulate('fixed')"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(4)]
        bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        said = subprocess.run(
            ["bash", "-c", "".join(printed[1:])], capture_output=True, text=True, timeout=30, env=bare, check=False
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert printed[0].startswith("http://127.0.0.1:")
    assert "generated_text" in said.stdout, said.stderr
