"""What a signal does while a run goes on: the first drains, the second interrupts, whichever they are."""

import os
import signal
import sys
import threading
from itertools import product

import pytest

from raybench.watching import interruptible, terminable

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize(("first", "second"), list(product(BOTH, BOTH)))
def test_the_first_signal_drains_and_the_second_interrupts(first: signal.Signals, second: signal.Signals) -> None:
    stopping, said, before = threading.Event(), list[str](), [signal.getsignal(number) for number in BOTH]
    with interruptible(stopping, said.append):
        os.kill(os.getpid(), first)
        assert stopping.is_set()
        assert said == ["stopping: waiting for the requests in flight (again to stop at once)"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)
    assert [signal.getsignal(number) for number in BOTH] == before


def ended_while_ray_starts() -> None:
    with terminable():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        os.kill(os.getpid(), signal.SIGTERM)


def test_what_would_end_the_process_interrupts_it_also_where_ray_has_its_own_way() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminable(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        ended_while_ray_starts()
    assert signal.getsignal(signal.SIGTERM) is before
