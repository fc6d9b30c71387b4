"""The one border to AWS: every refusal is an EndpointError with the service's own words."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from raybench.endpoints.ledger import Kind
from raybench.errors import EndpointError, InputError

PARAMETER: dict[Kind, str] = {
    "endpoint": "EndpointName", "endpoint-config": "EndpointConfigName", "model": "ModelName",
}  # fmt: skip
CALL: dict[Kind, str] = {"endpoint": "endpoint", "endpoint-config": "endpoint_config", "model": "model"}
ARN: dict[Kind, str] = {"endpoint": "EndpointArn", "endpoint-config": "EndpointConfigArn", "model": "ModelArn"}


def client(region: str | None) -> Any:
    """boto3's `sagemaker` client, found by botocore's rules, AWS_REGION before them; InputError if there is none."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.client("sagemaker", region_name=region or os.environ.get("AWS_REGION"))
    except (BotoCoreError, ValueError) as error:
        raise InputError(" ".join(str(error).split()), key="aws") from error


def account(region: str) -> str:
    """The account that our credentials are of, which only STS can tell; EndpointError if it doesn't."""
    import boto3
    from botocore.config import Config

    patience = Config(connect_timeout=10, read_timeout=10, retries={"total_max_attempts": 3, "mode": "standard"})
    return str(call(boto3.client("sts", region_name=region, config=patience).get_caller_identity)["Account"])


def call(function: Callable[..., Any], **asked: Any) -> dict[str, Any]:
    """Calls AWS; EndpointError with the service's own words when it refuses."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer: dict[str, Any] = function(**asked)
    except (BotoCoreError, ClientError) as error:
        raise EndpointError(" ".join(str(error).split())) from error
    return answer


def pages(function: Callable[..., Any], key: str, **asked: Any) -> Iterator[dict[str, Any]]:
    """The items of every page of a listing; EndpointError."""
    token: dict[str, str] = {}
    while True:
        page = call(function, MaxResults=100, **asked, **token)
        yield from page[key]
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


def describe(aws: Any, kind: Kind, name: str) -> dict[str, Any] | None:
    """What the service says of a resource; None if it isn't there."""
    try:
        return call(getattr(aws, f"describe_{CALL[kind]}"), **{PARAMETER[kind]: name})
    except EndpointError as error:
        if "could not find" in str(error).lower():  # a ValidationException like any other, told by its words
            return None
        raise


def tags(aws: Any, arn: str) -> dict[str, str]:
    """The tags of a resource; empty if it went away meanwhile."""
    try:
        return {tag["Key"]: tag["Value"] for tag in pages(aws.list_tags, "Tags", ResourceArn=arn)}
    except EndpointError as error:
        if "could not find" in str(error).lower() or "does not exist" in str(error).lower():
            return {}
        raise
