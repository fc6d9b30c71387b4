"""botocore's rules for who we are and where the service is, as they come out at our end."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from raybench.client.credentials import chain, surroundings
from raybench.client.sigv4 import Credentials
from raybench.errors import EndpointError, InputError


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AWS settings but those of the test."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_a_region_gives_the_runtimes_address() -> None:
    found = surroundings("us-west-2")
    assert (found.url, found.region) == ("https://runtime.sagemaker.us-west-2.amazonaws.com", "us-west-2")


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_of_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "eu-west-1")
    assert surroundings().region == "eu-west-1"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"])
def test_an_endpoint_url_of_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:8080")
    assert surroundings("us-west-2").url == "http://127.0.0.1:8080"


def test_fips_is_as_botocore_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert surroundings("us-west-2").url == "https://runtime-fips.sagemaker.us-west-2.amazonaws.com"


def test_a_ca_bundle_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/some/bundle.pem")
    assert surroundings("us-west-2").ca_bundle == "/some/bundle.pem"


def test_no_region_says_what_to_set() -> None:
    with pytest.raises(InputError, match="AWS_REGION"):
        surroundings()


def test_no_credentials_say_what_to_set() -> None:
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID"):
        chain()


def test_an_unknown_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match="nobody"):
        chain()


def test_a_profile_is_read_from_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_PROFILE", "bench")
    (tmp_path / "credentials").write_text(
        "[bench]\naws_access_key_id = AKID\naws_secret_access_key = secret\naws_session_token = token\n"
    )
    assert chain()() == Credentials("AKID", "secret", "token")


def credential_process(folder: Path, before: str) -> None:
    """A profile whose credentials come from a script and are always about to expire; `before` runs first."""
    count = folder / "count"
    answer = {
        "Version": 1,
        "AccessKeyId": "AKID$n",
        "SecretAccessKey": "s",
        "SessionToken": "t",
        "Expiration": "$end",
    }
    script = folder / "fetch"
    script.write_text(
        f"#!/bin/sh\n{before}\necho x >> {count}\nn=$(wc -l < {count})\n"
        f'end=$(date -u -d "+5 minutes" +%Y-%m-%dT%H:%M:%SZ)\necho "{json.dumps(json.dumps(answer))[1:-1]}"\n'
    )
    script.chmod(0o755)
    (folder / "config").write_text(f"[default]\ncredential_process = {script}\n")


def test_credentials_about_to_expire_are_fetched_again_each_time_they_are_frozen(tmp_path: Path) -> None:
    credential_process(tmp_path, before="")
    freeze = chain()
    assert [freeze().access_key, freeze().access_key] == ["AKID2", "AKID3"]


def test_credentials_that_cannot_be_refreshed_are_one_line(tmp_path: Path) -> None:
    credential_process(tmp_path, before=f"[ -e {tmp_path / 'count'} ] && exit 1")
    freeze = chain()
    with pytest.raises(EndpointError, match=r"refreshed: [^\n]+$"):
        freeze()


def test_a_role_that_may_not_be_assumed_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile low]\naws_access_key_id = AKID\naws_secret_access_key = s\n"
        "[profile high]\nrole_arn = arn:aws:iam::123456789012:role/high\nsource_profile = low\nregion = us-west-2\n"
    )
    denied = (
        "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you</Message></Error>"
        "</ErrorResponse>"
    )

    class Sts(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(403)
            self.end_headers()
            self.wfile.write(denied.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing on stderr."""

    with HTTPServer(("127.0.0.1", 0), Sts) as sts:
        threading.Thread(target=sts.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{sts.server_port}")
        monkeypatch.setenv("AWS_PROFILE", "high")
        freeze = chain()
        with pytest.raises(EndpointError, match=r"refreshed: [^\n]*not you$"):
            freeze()
        sts.shutdown()
