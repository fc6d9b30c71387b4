"""Our signatures are botocore's, on thousands of random requests."""

import random
from base64 import b64decode
from calendar import timegm
from hashlib import sha256
from time import strptime

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from raybench.client.sigv4 import TOKEN_PREFIX, Credentials, Signer, amz_date, bearer_token

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
REGIONS = ("us-west-2", "eu-central-1", "ap-southeast-2", "us-gov-west-1", "cn-north-1")


def word(rng: random.Random, alphabet: str, most: int) -> str:
    return "".join(rng.choices(alphabet, k=rng.randint(1, most)))


def some_credentials(rng: random.Random) -> Credentials:
    token = word(rng, LETTERS + "/+=", 900) if rng.random() < 0.5 else None
    return Credentials(word(rng, LETTERS, 20), word(rng, LETTERS + "/+", 40), token)


def some_headers(rng: random.Random) -> dict[str, str]:
    names = rng.sample(
        ["Content-Type", "Accept", "X-Amzn-SageMaker-Accept", "X-Amzn-SageMaker-Target-Variant", "Zed"], 3
    )
    return {"Host": f"{word(rng, LETTERS, 9)}.example"} | {name: word(rng, LETTERS + "  ;=/", 40) for name in names}


def some_path(rng: random.Random) -> str:
    alphabet = LETTERS + "-._~%:/"
    return "/" + "/".join(rng.choice([word(rng, alphabet, 12), ".", "..", ""]) for _ in range(rng.randint(0, 5)))


def some_query(rng: random.Random) -> str:
    return "&".join(
        f"{word(rng, LETTERS, 3)}={word(rng, LETTERS + '%-', 5)}" for _ in range(rng.choice([0, 0, 1, 3]))
    )


def botocores(credentials: Credentials, region: str, request: AWSRequest, epoch_s: int) -> dict[str, str]:
    """The headers botocore would send, at a time of our choosing."""
    keys = BotocoreCredentials(credentials.access_key, credentials.secret_key, credentials.token)
    auth = SigV4Auth(keys, "sagemaker", region)
    request.context["timestamp"] = amz_date(epoch_s)
    auth._modify_request_before_signing(request)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(text, request))
    return dict(request.headers.items())


def test_three_thousand_random_requests_are_signed_as_botocore_signs_them() -> None:
    rng = random.Random(1)
    for _ in range(600):
        credentials, region, headers = some_credentials(rng), rng.choice(REGIONS), some_headers(rng)
        path, query, method = some_path(rng), some_query(rng), rng.choice(["POST", "GET"])
        signer = Signer(credentials, region, headers, path, query=query, method=method)
        second = rng.randrange(1_000_000_000, 2_000_000_000)
        for _ in range(5):
            second += rng.choice([0, 0, 1, 86_400])
            body = rng.randbytes(rng.choice([0, 1, 100, 4096]))
            url = f"https://host.example{path}" + (f"?{query}" if query else "")
            theirs = botocores(credentials, region, AWSRequest(method, url, headers, body), second)
            lines = signer.lines(sha256(body).hexdigest(), second).decode().splitlines()
            for name, value in (line.split(": ", 1) for line in lines):
                assert theirs[name] == value


def test_a_thousand_bearer_tokens_are_botocores_presigned_url() -> None:
    rng = random.Random(2)
    for _ in range(1000):
        credentials, region, life_s = some_credentials(rng), rng.choice(REGIONS), rng.randint(1, 43_200)
        second = rng.randrange(1_000_000_000, 2_000_000_000)
        request = AWSRequest(
            "POST",
            "https://sagemaker.amazonaws.com/",
            {"host": "sagemaker.amazonaws.com"},
            params={"Action": "CallWithBearerToken"},
        )
        keys = BotocoreCredentials(credentials.access_key, credentials.secret_key, credentials.token)
        auth = SigV4QueryAuth(keys, "sagemaker", region, expires=life_s)
        request.context["timestamp"] = amz_date(second)
        auth._modify_request_before_signing(request)
        text = auth.string_to_sign(request, auth.canonical_request(request))
        auth._inject_signature_to_request(request, auth.signature(text, request))
        token = bearer_token(credentials, region, second, life_s)
        assert token.startswith(TOKEN_PREFIX)
        assert "https://" + b64decode(token.removeprefix(TOKEN_PREFIX)).decode() == request.url + "&Version=1"


def test_an_instant_is_written_the_way_aws_wants_it() -> None:
    assert amz_date(0) == "19700101T000000Z"
    assert timegm(strptime(amz_date(1_764_032_523), "%Y%m%dT%H%M%SZ")) == 1_764_032_523


@pytest.mark.parametrize("secret", ["very-secret", "session-token"])
def test_secrets_never_show_in_a_repr(secret: str) -> None:
    assert secret not in repr(Credentials("AKIDEXAMPLE", "very-secret", "session-token"))
