"""Who we are and where the service is, by botocore's rules; imported only when asked, refreshed off the timed path.

The chain of credentials, AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME, FIPS and the
CA bundle are botocore's business. Nothing here is ever written anywhere.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raybench.client.sigv4 import Credentials
from raybench.errors import EndpointError, InputError

RUNTIME = "sagemaker-runtime"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What botocore finds: the runtime's base URL, the region, the CA bundle if one is set."""

    url: str
    region: str
    ca_bundle: str | None = None


def surroundings(region: str | None = None) -> Surroundings:
    """Where the SageMaker runtime is; raises InputError when there is no region."""
    from botocore.exceptions import BotoCoreError, NoRegionError

    try:
        session = _session()
        session.set_credentials("-", "-")  # an address needs none, and looking for them takes time
        client = session.create_client(RUNTIME, region_name=region or os.environ.get("AWS_REGION"))
        bundle = session.get_config_variable("ca_bundle")
    except NoRegionError:
        raise InputError("no AWS region", key="region", allowed="set region, AWS_REGION or a profile") from None
    except (BotoCoreError, ValueError) as error:
        raise InputError(_line(error), key="aws") from error
    return Surroundings(client.meta.endpoint_url, client.meta.region_name, bundle)


def chain() -> Callable[[], Credentials]:
    """botocore's credentials, frozen at each call of what this returns; raises InputError when it finds none.

    A call refreshes what is due, which may take seconds: it belongs between trials.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = _session().get_credentials()
    except (BotoCoreError, ClientError) as error:
        raise InputError(_line(error), key="credentials") from error
    if found is None:
        allowed = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role"
        raise InputError("no AWS credentials found", key="credentials", allowed=allowed)

    def freeze() -> Credentials:
        try:
            frozen = found.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:  # the latter is what STS says no with
            raise EndpointError(f"AWS credentials cannot be refreshed: {_line(error)}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    return freeze


def _session() -> Any:
    from botocore.session import Session

    return Session()


def _line(error: Exception) -> str:
    text = str(error)
    return text.splitlines()[0] if text else type(error).__name__
