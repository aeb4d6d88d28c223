from collections.abc import Callable
from contextlib import suppress
from threading import Barrier, Semaphore, Thread
from typing import Any

from sercli.system.room import Room

# Seconds after which a thread that should have gone on is taken for stuck.
STUCK_S = 30


class WatchedRoom(Room):
    """Tells when somebody has to wait, and who was inside with whom."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Semaphore(0)
        self.inside: list[str] = []
        self.seen: list[list[str]] = []
        wait_for = self._changed.wait_for

        def wait(predicate: Callable[[], Any]) -> None:
            if not predicate():
                self.waits.release()
            wait_for(predicate)

        self._changed.wait_for = wait  # type: ignore[method-assign, assignment]

    def begin(self, name: str, *, alone: bool, meeting: Barrier | None = None) -> Thread:
        """Let a thread enter; it meets others inside if it is not to be alone."""

        def use() -> None:
            with self.enter(alone=alone):
                self.inside.append(name)
                self.seen.append(sorted(self.inside))
                if meeting is not None:
                    meeting.wait(STUCK_S)
                self.inside.remove(name)

        thread = Thread(target=use, daemon=True)
        thread.start()
        return thread

    def begin_waiting(self, name: str, **options: Any) -> Thread:
        """The same, and return when it waits."""
        thread = self.begin(name, **options)
        assert self.waits.acquire(timeout=STUCK_S)
        return thread


def test_who_would_be_alone_waits_for_all_inside_and_goes_before_others() -> None:
    room, meeting = WatchedRoom(), Barrier(2)
    with room.enter(alone=False):
        with room.enter(alone=False):
            threads = [room.begin_waiting("alone", alone=True)]
        threads += [room.begin_waiting(one, alone=False, meeting=meeting) for one in "ab"]
        assert room.seen == []
    for thread in threads:
        thread.join(STUCK_S)
    assert room.seen[0] == ["alone"]
    # The others are all let in then, at the same time.
    assert sorted(map(len, room.seen[1:])) == [1, 2]
    assert room.seen[-1] == ["a", "b"]


def test_nobody_enters_beside_who_is_alone() -> None:
    room = WatchedRoom()
    with room.enter(alone=True):
        threads = [room.begin_waiting("c", alone=False)]
        threads += [room.begin_waiting(one, alone=True) for one in "ab"]
        assert room.seen == []
    for thread in threads:
        thread.join(STUCK_S)
    assert sorted(room.seen) == [["a"], ["b"], ["c"]]


def test_an_error_inside_leaves_the_room_to_others() -> None:
    room = WatchedRoom()
    for alone in (True, False):
        with suppress(MemoryError), room.enter(alone=alone):
            raise MemoryError
    with room.enter(alone=True):
        assert not room.waits.acquire(blocking=False)
