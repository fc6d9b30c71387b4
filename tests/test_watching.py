"""What a signal does while a run goes on: the first drains, the second interrupts, whichever they are."""

import os
import signal
import sys
import threading
from concurrent.futures import Future
from itertools import product
from typing import Any

import pytest
from waiting import until

from raybench.watching import interruptible, terminable, watch

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize(("first", "second"), list(product(BOTH, BOTH)))
def test_the_first_signal_drains_and_the_second_interrupts(first: signal.Signals, second: signal.Signals) -> None:
    stopping, said, before = threading.Event(), list[str](), [signal.getsignal(number) for number in BOTH]
    with interruptible(stopping, said.append):
        os.kill(os.getpid(), first)
        until(lambda: said == ["stopping: waiting for the requests in flight (again to stop at once)"])
        assert stopping.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)
    assert [signal.getsignal(number) for number in BOTH] == before


def test_a_signal_amid_a_print_is_said_once_that_print_is_over() -> None:
    stopping, said, printing = threading.Event(), list[str](), threading.Lock()

    def say(words: str) -> None:
        assert printing.acquire(timeout=20)
        said.append(words)
        printing.release()

    with interruptible(stopping, say):
        with printing:
            os.kill(os.getpid(), signal.SIGTERM)
            until(stopping.is_set)
            assert said == []
        until(lambda: said)


def test_a_signal_amid_the_setting_of_the_event_waits_for_nothing() -> None:
    stopping, said = threading.Event(), list[str]()
    with interruptible(stopping, said.append):
        with stopping._cond:  # type: ignore[attr-defined]  # what set() holds
            os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: said)


class Draining:
    """A crew whose trial ends as soon as it is drained."""

    def __init__(self, trial: "Future[None]") -> None:
        self.trial = trial

    def drain(self) -> None:
        self.trial.set_result(None)


def test_a_run_that_is_stopped_is_drained_and_not_only_stopped() -> None:
    trial, stopping = Future[None](), threading.Event()
    stopping.set()
    crew: Any = Draining(trial)
    assert watch([trial], [crew], stopping, None, lambda: None) is None
    assert trial.done()


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
