"""A run on its way to S3 while it goes on: this node's files by a thread, the spools of other nodes by couriers.

Where S3 does not take them, files wait on the disk they are on, and every round tries again. Past a cap the run is
told to stop, and at the end there are only so many more tries; either is one error that says where the rows are.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from raybench.errors import InfrastructureError, InterruptedRunError, StorageError
from raybench.mirror import Mirror
from raybench.s3 import Prefix, Store

if TYPE_CHECKING:
    from raybench.cluster.couriers import Couriers

EVERY_S = 5.0
CAP_BYTES = 2**30
"""What may wait on a node before the run stops."""

LAST_TRIES = 6
"""How often the end of a run is offered to S3, a round apart; once if somebody wants the run to stop."""

MIB = 2**20


class Shipping:
    """Copies `run_dir` to `place` from entering to leaving, when all is there; at both, StorageError says if not.

    `failure` is what should stop the run, if anything should. `say` gets a line when S3 begins to refuse, or to take.
    """

    def __init__(
        self,
        run_dir: Path,
        place: Prefix,
        say: Callable[[str], None],
        *,
        every_s: float = EVERY_S,
        cap_bytes: int = CAP_BYTES,
        last_tries: int = LAST_TRIES,
    ) -> None:
        self.run_dir, self.place, self.say = run_dir, place, say
        self._every_s, self._cap_bytes, self._last_tries = every_s, cap_bytes, last_tries
        self.failure: StorageError | None = None
        self._mirror = Mirror(run_dir, Store(place))
        self._refused: set[str] = set()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._couriers: Couriers | None = None
        self._nodes: Callable[[], Iterable[str]] = tuple
        self._thread = threading.Thread(target=self._go_on, name="shipping", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._mirror.round()
        except StorageError as error:
            raise StorageError(f"{error}; nothing was started: {self._where()}") from None
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raises what comes in the place of `error`: that not all was copied, unless something else broke the run."""
        self._ending.set()
        try:
            self._thread.join()
            self._finish(1 if isinstance(error, InterruptedRunError) else self._last_tries)
            self.say(f"all of it is in {self.place}")
        except StorageError as ours:
            if not isinstance(error, InfrastructureError):
                raise ours from None
            self.say(str(ours))
        except KeyboardInterrupt:
            raise InterruptedRunError(f"stopped before all was copied: {self._where()}") from None

    def follow(self, nodes: Callable[[], Iterable[str]], sitting: int) -> None:
        """Copies from `nodes` too, whichever they are at the time; StorageError if one of them may not.

        Until `leave`, for which Ray must still be up.
        """
        from raybench.cluster.couriers import Couriers

        couriers = Couriers(self.run_dir, self.place, sitting)
        couriers.post(nodes())
        couriers.probe()
        with self._lock:
            self._couriers, self._nodes = couriers, nodes

    def leave(self) -> None:
        """Copies from the other nodes once more, and forgets them."""
        with self._lock:
            couriers, self._couriers = self._couriers, None
        for told in couriers.last() if couriers else ():
            self._note(*told)

    def _go_on(self) -> None:
        try:
            while not self._ending.wait(self._every_s):
                self._round()
        except Exception as error:  # nobody else would hear of it, and nothing more be copied
            self.failure = StorageError(f"copying to {self.place} broke off: {error!r}; stopped: {self._where()}")
            self.say(str(self.failure))

    def _round(self) -> None:
        try:
            self._mirror.round()
        except StorageError as error:
            self._note(socket.gethostname(), str(error), self._mirror.backlog_bytes())
        else:
            self._note(socket.gethostname(), "", 0)
        with self._lock:
            if self._couriers:
                self._ask(self._couriers)

    def _ask(self, couriers: "Couriers") -> None:
        couriers.post(self._nodes())
        for told in couriers.round():
            self._note(*told)

    def _note(self, host: str, why: str, backlog_bytes: int) -> None:
        if bool(why) != (host in self._refused):
            self._refused ^= {host}
            waits = f"{why}; the files wait on {host}" if why else f"{self.place} takes the files of {host} again"
            self.say(waits)
        if backlog_bytes > self._cap_bytes and not self.failure:
            waiting, may = f"{backlog_bytes / MIB:.0f} MiB wait on {host}", f"{self._cap_bytes / MIB:.0f}"
            self.failure = StorageError(f"{why}; {waiting}, more than the {may} that may; stopped: {self._where()}")

    def _finish(self, tries: int) -> None:
        for left in reversed(range(tries)):
            try:
                self._mirror.round()
            except StorageError as error:
                if not left:
                    raise StorageError(f"{error}; not all was copied: {self._where()}") from None
                time.sleep(self._every_s)
            else:
                return

    def _where(self) -> str:
        return f"all rows are in {self.run_dir} on {socket.gethostname()}; `raybench resume {self.run_dir}` goes on"
