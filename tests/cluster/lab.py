"""A small network on one machine: a control host, a head and two workers, each in namespaces of its own.

Every host has its own network, processes, mounts and name, so `ray stop`, which `ray up` runs, sees its own host's
processes only. The hosts are joined by a bridge in the control host's network; nothing leads out of it. A host ends
with one process of ours, which takes everything inside along.
"""

import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOSTS = {"ctl": "10.77.0.1", "head": "10.77.0.10", "w1": "10.77.0.11", "w2": "10.77.0.12"}
TOOLS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux"} | {
    "/usr/sbin/sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
}
HOME = pwd.getpwuid(0).pw_dir
ACCESS_KEY, SECRET_KEY, REGION = "AKIDNAMESPACES", "worth-nothing", "us-west-2"


def why_not() -> str:
    """Why no such network can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "it needs root"
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        return f"it needs {' '.join(missing)} (apt-get install)"
    name = f"rb{secrets.token_hex(2)}try"
    made = _ran("ip", "netns", "add", name)
    if made.returncode:
        return f"it may not make network namespaces: {made.stderr.strip()}"
    _ran("ip", "netns", "del", name)
    alone = _ran("unshare", "-m", "-u", "-p", "-f", "--mount-proc", "true")
    return f"it may not make namespaces: {alone.stderr.strip()}" if alone.returncode else ""


def _ran(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False)


def _must(*words: str) -> None:
    done = _ran(*words)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


@dataclass
class Lab:
    """The network, its folder, and the processes that hold its hosts."""

    folder: Path
    prefix: str
    token: str
    addresses: dict[str, str] = field(default_factory=dict)
    holders: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def home(self, name: str) -> Path:
        """A host's home, as it is seen from outside."""
        return self.folder / "home" / name

    def inside(self, name: str) -> int:
        """The first process inside a host."""
        pid = self.holders[name].pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def environ(self) -> dict[str, str]:
        """What a shell on the control host knows."""
        return {
            "HOME": HOME,
            "PATH": f"{HOME}/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "PYTHONUNBUFFERED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": f"{HOME}/.raybench/token",
            "RAY_UP_enable_autoscaler_v2": "0",
        }

    def start(self, name: str, *words: str, environ: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Starts a command inside a host, in the repository's folder."""
        assert self.holders[name].poll() is None, f"{name} is gone"
        command = ["nsenter", "-t", str(self.inside(name)), "-m", "-u", "-n", "-p", f"--wd={ROOT}", "--", *words]
        process = subprocess.Popen(
            command,
            env={**self.environ(), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def call(self, name: str, *words: str, timeout_s: float = 120, environ: Mapping[str, str] | None = None) -> str:
        """Runs a command inside a host to its end; what it printed."""
        process = self.start(name, *words, environ=environ)
        out, _ = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, f"{' '.join(words)} -> {process.returncode}\n{out}"
        return out

    def add(self, name: str, address: str, key: str, bashrc: str, own: str = "") -> None:
        """One more host, which the public `key` opens; it has a copy of its own of the folder `own`."""
        _join(self, name, address)
        _home(self, name, key, bashrc)
        _host(self, name, own)
        _wait(self.folder / f"{name}.ready", self.holders[name])

    def vanish(self, name: str) -> None:
        """Takes a host away: its network first, then every process on it, without a word to anybody."""
        _must("ip", "-n", f"{self.prefix}ctl", "link", "set", f"v{name}", "down")
        self.holders[name].kill()
        self.holders[name].wait()

    def close(self) -> None:
        """Ends every process of ours, host by host, and takes the network away."""
        for name in reversed(self.holders):
            self.holders[name].kill()
            self.holders[name].wait()
        for process in self.started:
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=5)
            if process.poll() is None:
                process.kill()
                process.communicate()
        for name in self.addresses:
            _ran("ip", "netns", "del", f"{self.prefix}{name}")
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def lab(hosts: Sequence[str] = tuple(HOSTS)) -> Iterator[Lab]:
    """Such a network, for the length of the block; the control host is always in it."""
    made = Lab(Path(tempfile.mkdtemp(prefix="raybench-lab-")), f"rb{secrets.token_hex(2)}", secrets.token_hex(32))
    try:
        _control(made)
        role = f"AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY} AWS_REGION={REGION}"
        key = (made.folder / "id.pub").read_text()
        for name in hosts:
            if name != "ctl":
                made.add(name, HOSTS[name], key, f"export PYTHONPATH={HOME}/raybench {role}\n")
        yield made
    finally:
        made.close()


def _control(made: Lab) -> None:
    for name in ("id", "hostkey"):
        _must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made.folder / name))
    there = _namespace(made, "ctl", HOSTS["ctl"])
    _must("ip", "-n", there, "link", "add", "br0", "type", "bridge")
    _must("ip", "-n", there, "addr", "add", f"{HOSTS['ctl']}/24", "dev", "br0")
    _must("ip", "-n", there, "link", "set", "br0", "up")
    _folders(made, "ctl")
    _secret(made.home("ctl") / ".ssh" / "raybench", (made.folder / "id").read_text())
    _secret(made.home("ctl") / ".raybench" / "token", made.token)
    _host(made, "ctl")
    _wait(made.folder / "ctl.ready", made.holders["ctl"])


def _namespace(made: Lab, name: str, address: str) -> str:
    there = f"{made.prefix}{name}"
    made.addresses[name] = address
    _must("ip", "netns", "add", there)
    _must("ip", "-n", there, "link", "set", "lo", "up")
    return there


def _join(made: Lab, name: str, address: str) -> None:
    control, there = f"{made.prefix}ctl", _namespace(made, name, address)
    _must("ip", "link", "add", f"v{name}", "netns", control, "type", "veth", "peer", "name", "eth0", "netns", there)
    _must("ip", "-n", control, "link", "set", f"v{name}", "master", "br0", "up")
    _must("ip", "-n", there, "addr", "add", f"{address}/24", "dev", "eth0")
    _must("ip", "-n", there, "link", "set", "eth0", "up")
    _must("ip", "-n", there, "route", "add", "default", "via", HOSTS["ctl"])  # how Ray finds its own address


def _folders(made: Lab, name: str) -> None:
    (made.home(name) / ".ssh").mkdir(parents=True)
    for folder in (made.home(name), made.home(name) / ".ssh"):
        folder.chmod(0o700)
    (made.home(name) / "venv").symlink_to(sys.prefix)


def _home(made: Lab, name: str, key: str, bashrc: str) -> None:
    _folders(made, name)
    _secret(made.home(name) / ".ssh" / "authorized_keys", key)
    (made.home(name) / ".bashrc").write_text(bashrc)
    (made.home(name) / ".profile").write_text(". ~/.bashrc\n")


def _secret(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _host(made: Lab, name: str, own: str = "") -> None:
    keep = sorted({str(Path(path).resolve()) for path in (sys.base_prefix, sys.prefix, ROOT)})
    covered = [path for path in keep if path.startswith(f"{HOME}/")]
    node = [str(Path(__file__).with_name("node.sh")), name, str(made.folder), HOME, own, *covered]
    alone = ["unshare", "-m", "-u", "-p", "-f", "--mount-proc", "--kill-child"]
    with (made.folder / f"{name}.log").open("w") as log:
        made.holders[name] = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", f"{made.prefix}{name}", *alone, "bash", *node],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait(sign: Path, holder: "subprocess.Popen[bytes]") -> None:
    from waiting import until  # pytest finds it; this file runs without, too

    log = sign.with_suffix(".log")

    def ready() -> bool:
        assert holder.poll() is None, log.read_text()
        return sign.exists()

    until(ready, log.read_text, within_s=20.0)


def listening(made: Lab, name: str) -> Sequence[tuple[str, int]]:
    """Every TCP address and port that a host listens on."""
    table = json.loads(made.call(name, sys.executable, "-c", _LISTENING))
    return [(address, port) for address, port in table]


_LISTENING = """
import ipaddress, json
found = set()
for path in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(path).read().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A":
            address, port = local.split(":")
            words = [bytes.fromhex(address[at:at + 8])[::-1] for at in range(0, len(address), 8)]
            ip = ipaddress.ip_address(b"".join(words))
            found.add((str(getattr(ip, "ipv4_mapped", None) or ip), int(port, 16)))
print(json.dumps(sorted(found)))
"""


if __name__ == "__main__":
    sys.exit(why_not() or 0)
