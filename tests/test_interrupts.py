"""Tests of how a program ends that is told to, by real signals."""

import signal
import threading

import pytest

from sercli.system.interrupts import delay_interrupts, ending_in_order

pytestmark = pytest.mark.usefixtures("interruptible")


def test_what_ends_is_not_interrupted_again() -> None:
    with ending_in_order():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_a_block() -> None:
    done = []

    def work() -> None:
        with delay_interrupts():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")
        done.append("what comes after")

    with ending_in_order(), pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with delay_interrupts():
        pass

    def fail() -> None:
        with delay_interrupts():
            signal.raise_signal(signal.SIGINT)
            raise OSError("disk full")

    with pytest.raises(KeyboardInterrupt):
        fail()


def test_other_threads_have_no_signals_to_delay() -> None:
    done = []

    def run() -> None:
        with delay_interrupts(), ending_in_order():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]
