"""Tests of how a program ends that is told to, by real signals."""

import os
import signal
import threading
from pathlib import Path

import pytest

from sercli.files import write_together
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


@pytest.mark.parametrize("name", ["replace", "unlink"])
def test_an_interrupt_leaves_no_old_file_among_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    weights, model, report = (tmp_path / one for one in ("weights", "model", "report"))
    for path in (weights, model, report):
        path.write_text("old")
    work = getattr(os, name)

    def interrupt(*given: Path) -> None:
        signal.raise_signal(signal.SIGTERM)
        work(*given)

    monkeypatch.setattr(os, name, interrupt)
    with ending_in_order(), pytest.raises(KeyboardInterrupt):
        write_together({weights: b"new", model: b"new"}, [report])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "weights": "new", "model": "new",
    }  # fmt: skip


def test_other_threads_have_no_signals_to_delay() -> None:
    done = []

    def run() -> None:
        with delay_interrupts(), ending_in_order():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]
