"""Signals to a verb that leaves nothing half done: the first is heard where it can be, the second ends at once."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SLICE_S = 0.1


class Ear:
    """Hears every one of SIGNALS alike: the first says `words` and waits to be asked for, the second interrupts."""

    def __init__(self, words: str) -> None:
        self._words, self._heard, self._deaf = words, 0, False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """What Python calls in the main thread, between any two of its instructions."""
        if self._deaf:
            return
        self._heard += 1
        if self._heard > 1:
            raise KeyboardInterrupt
        with suppress(OSError):  # no print, which may be under way; and the terminal may be gone
            os.write(2, f"raybench: {self._words}\n".encode())

    def check(self) -> None:
        """KeyboardInterrupt if a signal came."""
        if self._heard:
            raise KeyboardInterrupt

    def pause(self, seconds: float) -> None:
        """Sleeps, until the first signal at most."""
        before, until_s = self._heard, time.monotonic() + seconds
        while self._heard == before and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _SLICE_S))

    def close(self) -> None:
        """From here on signals are nothing: all that is left is to say what there is to say."""
        self._deaf = True


@contextmanager
def heard(words: str) -> Iterator[Ear]:
    """Has this process's signals heard while the block lasts, but for those that it ignores; main thread only."""
    ear = Ear(words)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, ear)
    try:
        yield ear
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
