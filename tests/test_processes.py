"""Features in processes of their own."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sercli.classifiers.processes import START_S, WATCH_S, FeatureProcesses, _end_after
from sercli.features.vector import extract_rows
from sercli.registry.store import load_model

LONG = np.zeros(int(START_S * 16_000), np.float32)


def describe(waveforms: Sequence[NDArray[np.float32]], sign: int = 1) -> NDArray[np.float32]:
    """Return the process, its threads, and the length of each segment."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    return np.array([[os.getpid() % 65_536, threads, sign * len(one)] for one in waveforms], "f4")


def die_elsewhere(waveforms: Sequence[NDArray[np.float32]], home: int) -> NDArray[np.float32]:
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.array([[len(one)] for one in waveforms], np.float32)


def list_processes(executor: Any) -> list[int]:
    return [pid % 65_536 for pid in executor._processes]


def test_begins_here_and_goes_on_in_processes() -> None:
    here = os.getpid() % 65_536
    with FeatureProcesses(partial(describe, sign=-1), 2, 3) as processes:
        (first,) = processes([np.zeros(16_000, np.float32)])
        assert (first[0], first[2]) == (here, -16_000)
        rows = processes([LONG, LONG[:5]])
        assert here not in rows[:, 0]
        assert rows[:, 1:].tolist() == [[3, -len(LONG)], [3, -5]]
        executor = processes._executor
        again = processes([LONG])
        assert processes._executor is executor
        assert {*again[:, 0].tolist()} <= set(list_processes(executor))
    assert executor._flags.shutdown
    assert executor._flags.kill_workers


def count(waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the number of segments of the task, and the length of each."""
    return np.array([[len(waveforms), len(one)] for one in waveforms], np.float32)


def test_a_batch_is_divided_into_tasks_of_30_s() -> None:
    lengths = [31, 12, 19, 6, 29]
    batch = [np.zeros(16_000 * seconds, np.float32) for seconds in lengths]
    with FeatureProcesses(count, 2, 1) as processes:
        rows = processes(batch)
    expected = [[n, 16_000 * s] for n, s in zip([1, 2, 2, 2, 2], lengths, strict=True)]
    assert rows.tolist() == expected


def tell_blocked(waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return which process this is, and whether an interrupt would reach it."""
    is_blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return np.array([[os.getpid() % 65_536, is_blocked]] * len(waveforms), np.float32)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no such mask")
def test_interrupts_do_not_reach_processes_even_while_they_start() -> None:
    with FeatureProcesses(tell_blocked, 2, 1) as processes:
        ((process, is_blocked),) = processes([LONG]).tolist()
    assert (process != os.getpid() % 65_536, is_blocked) == (True, 1)
    assert tell_blocked([LONG]).tolist() == [[os.getpid() % 65_536, 0]]


def count_watchers(waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the number of threads that wait for the end of the parent process."""
    threads = [one for one in threading.enumerate() if one.daemon]
    watchers = [one for one in threads if _end_after.__name__ in one.name]
    return np.array([[len(watchers)]] * len(waveforms), np.float32)


def test_processes_watch_whether_their_parent_lives() -> None:
    with FeatureProcesses(count_watchers, 2, 1) as processes:
        assert processes([LONG, LONG]).tolist() == [[1], [1]]


def test_a_process_that_is_killed_costs_nothing_but_time() -> None:
    extract = partial(die_elsewhere, home=os.getpid())
    with FeatureProcesses(extract, 2, 1) as processes:
        for _ in range(2):
            assert processes([LONG, LONG[:7]]).tolist() == [[len(LONG)], [7]]


def test_there_need_be_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    n_tries = 0

    def fail(*_: object, **__: object) -> None:
        nonlocal n_tries
        n_tries += 1
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("loky.ProcessPoolExecutor", fail)
    with FeatureProcesses(partial(describe, sign=-1), 2, 1) as processes:
        for _ in range(2):
            assert processes([LONG])[0, 0] == os.getpid() % 65_536
    assert n_tries == 1


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_without_streams_there_are_no_processes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loky.ProcessPoolExecutor", None)
    monkeypatch.setattr(sys, name, None)
    with FeatureProcesses(partial(describe, sign=-1), 2, 1) as processes:
        for _ in range(2):
            ((process, _, length),) = processes([LONG]).tolist()
            assert (process, length) == (os.getpid() % 65_536, -len(LONG))


def test_daemonic_processes_have_no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loky.ProcessPoolExecutor", None)
    config: Any = vars(multiprocessing.current_process())["_config"]
    monkeypatch.setitem(config, "daemon", True)
    with FeatureProcesses(partial(describe, sign=-1), 2, 1) as processes:
        assert processes([LONG])[0, 0] == os.getpid() % 65_536


def test_rows_are_the_same_wherever_they_are_computed(rng: np.random.Generator) -> None:
    batches = [
        [rng.standard_normal(9_000 + 700 * n).astype(np.float32) * 0.1 for n in range(k, k + 3)]
        for k in range(6)
    ]
    extract = partial(extract_rows, band_limit=4000.0)
    with FeatureProcesses(extract, 2, 1) as processes, ThreadPoolExecutor(3) as threads:
        processes([LONG])
        found = list(threads.map(processes, batches))
    # On one thread, too: some processors sum in another order on several.
    with threadpool_limits(1):
        expected = [extract(batch) for batch in batches]
    for rows, one in zip(found, expected, strict=True):
        np.testing.assert_array_equal(rows, one)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_replicas_of_an_svm_classify_alike(n_workers: int, rng: np.random.Generator) -> None:
    model = load_model(Path(__file__).parent.parent / "models" / "svm")
    batch = [rng.standard_normal(16_000).astype(np.float32) for _ in range(3)]
    with model.replicas(n_workers, 1, 12.0) as replicas:
        assert len(replicas) == n_workers
        for replica in replicas:
            np.testing.assert_array_equal(replica.predict_proba(batch), model.predict_proba(batch))


def test_a_process_ends_with_the_one_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([7, 7, 1])
    waited: list[float] = []
    ended: list[int] = []
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(os, "_exit", ended.append)
    _end_after(7)
    assert (waited, ended) == ([WATCH_S, WATCH_S], [1])
