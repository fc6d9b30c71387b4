"""The simulated endpoint of the lab: on the control host's address, where the whole lab can reach it."""

import asyncio
import sys
from pathlib import Path

from lab import ACCESS_KEY, HOSTS, REGION, SECRET_KEY

from raybench.clock import monotonic_ns
from raybench.simulator.auth import Credentials
from raybench.simulator.faults import Faults
from raybench.simulator.profiles import profile
from raybench.simulator.server import GRAIN_S, EndpointSpec, Service
from raybench.simulator.truth import TruthLog

PORT = 8080


async def serve(truth: Path) -> None:
    """Serves `fast` until the process is ended; its truth log is at `truth`."""
    fast = EndpointSpec(profile("fixed", ttft_s=0.05, itl_s=0.01, tokens=16), Faults.of({}), 7)
    keys = Credentials(ACCESS_KEY, SECRET_KEY, REGION)
    service = Service({"fast": fast}, keys, TruthLog(truth), monotonic_ns, GRAIN_S)
    server = await asyncio.get_running_loop().create_server(service.connect, HOSTS["ctl"], PORT, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
