"""The lab's AWS, on the control host's address: moto's EC2 and S3, and the metadata service as version 2 of it is.

Called with the file of its memory. It prints one line of JSON for each instance that begins or ends, so that somebody
can bring a machine and take it away, and writes each call down: action, role, caller's address, parameters.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from threading import Lock, Thread
from typing import Any, TextIO
from urllib.parse import parse_qsl, urlencode

import boto3
from lab import ACCESS_KEY, HOSTS, REGION, ROOT, SECRET_KEY
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

PORT = 5000
URL = f"http://{HOSTS['ctl']}:{PORT}"
METADATA = "169.254.169.254"
BUCKET = "raybench-lab"
ROLES = ("raybench-head", "raybench-worker")
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def instances() -> list[Any]:
    """Every instance there ever was."""
    found: list[Any] = list(ec2_backends[DEFAULT_ACCOUNT_ID][REGION].all_instances())
    return found


ROLE_OF: dict[str, str] = {}
"""The role that each instance was launched with, by its id; moto gives it to the first of a launch only."""


class Recorded:
    """moto, with every call written down, and every change of an instance told."""

    def __init__(self, served: Application, memory: TextIO) -> None:
        self._served = served
        self._memory = memory
        self._known: dict[str, str] = {}
        self._lock = Lock()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        parameters: dict[str, str] = {}
        if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            parameters = dict(parse_qsl(body.decode()))
            if most := parameters.get("MaxCount"):  # EC2 launches as many as it can, moto as few as it may
                body = urlencode(parameters | {"MinCount": most}).encode()
            environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        answer = list(self._served(environ, start))
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")
        called = {
            "service": authorization.split("/")[3] if authorization.count("/") >= 4 else "",
            "action": parameters.pop("Action", "") or f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}",
            "role": token.removeprefix("token-of-"),
            "from": environ["REMOTE_ADDR"],
            "parameters": parameters,
        }
        with self._lock:
            self._memory.write(json.dumps(called) + "\n")
            self._memory.flush()
            self._tell(parameters.get("IamInstanceProfile.Name", ""))
        return answer

    def _tell(self, role: str) -> None:
        backend = ec2_backends[DEFAULT_ACCOUNT_ID][REGION]
        for instance in instances():
            if self._known.get(instance.id) == instance.state:
                continue
            ROLE_OF.setdefault(instance.id, role)
            self._known[instance.id] = instance.state
            key = backend.key_pairs.get(instance.key_name)
            told = {"id": instance.id, "state": instance.state, "address": instance.private_ip}
            print(json.dumps(told | {"key": key.material_public.decode() if key else ""}), flush=True)


@Request.application
def metadata(request: Request) -> Response:
    """IMDSv2: a token for a PUT, and the caller's role for the token; nothing for who has none."""
    caller = next((one for one in instances() if one.private_ip == request.remote_addr), None)
    if caller is None:
        return Response(status=404)
    if request.method == "PUT" and request.path == "/latest/api/token":
        return Response(f"session-{caller.id}")
    if request.headers.get("X-aws-ec2-metadata-token") != f"session-{caller.id}":
        return Response(status=401)
    role = ROLE_OF[caller.id]
    listing = "/latest/meta-data/iam/security-credentials"
    answers = {
        listing: role,
        f"{listing}/{role}": json.dumps(credentials(role)),
        "/latest/meta-data/placement/region": REGION,
        "/latest/meta-data/placement/availability-zone": f"{REGION}a",
        "/latest/meta-data/instance-id": caller.id,
    }
    path = request.path.rstrip("/")
    return Response(answers.get(path, ""), status=200 if path in answers else 404)


def credentials(role: str) -> dict[str, str]:
    """What the metadata service says about a role; all roles have one key, and a token tells them apart."""
    until = datetime.now(UTC) + timedelta(hours=6)
    return {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": ACCESS_KEY,
        "SecretAccessKey": SECRET_KEY,
        "Token": f"token-of-{role}",
        "Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}",
    }


def account() -> Iterator[tuple[str, str]]:
    """Makes what docs/cluster.md asks for, as somebody would: a network, a group, the roles, a bucket."""

    def client(service: str) -> Any:
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        return boto3.client(service, region_name=REGION, endpoint_url=URL, **keys)

    ec2, iam = client("ec2"), client("iam")
    block = f"{HOSTS['ctl'].rpartition('.')[0]}.0/24"
    vpc = ec2.create_vpc(CidrBlock=block)["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=block)["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="raybench", Description="its members", VpcId=vpc)["GroupId"]
    members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[members])
    trust = (ROOT / "deploy" / "iam" / "trust.json").read_text()
    for role in ROLES:
        policy = (ROOT / "deploy" / "iam" / f"{role.removeprefix('raybench-')}.json").read_text()
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
        iam.put_role_policy(RoleName=role, PolicyName=role, PolicyDocument=policy)
        iam.create_instance_profile(InstanceProfileName=role)
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    yield "sg-SET-ME", group
    yield "subnet-SET-ME", subnet


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with Path(sys.argv[1]).open("w") as memory:
        moto = Recorded(DomainDispatcherApplication(create_backend_app), memory)
        server = make_server(HOSTS["ctl"], PORT, moto, threaded=True, request_handler=MotoRequestHandler)
        Thread(target=server.serve_forever, daemon=True).start()
        print(json.dumps(dict(account())), flush=True)
        make_server(METADATA, 80, metadata, threaded=True).serve_forever()


if __name__ == "__main__":
    main()
