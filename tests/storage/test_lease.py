"""One driver at a time: the second is refused with the first one's name, and takes over what a killed one held."""

import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from mohole.errors import ArtifactError
from mohole.storage import Storage, Traffic, lease, open_storage

# Beats come every 0.1 s; 1.5 s without one is silence even on a busy machine.
TIMES = {"beat_seconds": 0.1, "stale_seconds": 1.5}
Start = Callable[..., "subprocess.Popen[str]"]

DRIVER = """
import sys, time
from mohole.storage import lease, open_storage
with lease(open_storage(sys.argv[1]), beat_seconds=0.1, stale_seconds=1.5):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_second_driver_is_refused_and_takes_over_after_a_kill(shared_storage: Storage, start: Start) -> None:
    driver = start(DRIVER, shared_storage.url)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "mine\n"
    with (
        pytest.raises(ArtifactError, match=rf"another process \(pid {driver.pid} on .+\) is working on it") as caught,
        lease(shared_storage, **TIMES),
    ):
        pass
    assert str(caught.value).startswith(f"{shared_storage.url}: ")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    with lease(shared_storage, **TIMES):
        pass


def test_it_is_free_at_once_when_the_block_ends_well_or_badly(storage: Storage) -> None:
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(KeyError), lease(storage):
            raise KeyError
    with lease(open_storage(storage.url)):
        pass
    assert time.monotonic() - started < 10  # the default silence is 30 s: it was not waited for


def test_it_is_no_object_and_no_traffic(storage: Storage) -> None:
    with lease(storage, **TIMES):
        time.sleep(0.3)
        assert storage.names() == []
        assert storage.sweep() == 0
    assert storage.names() == []
    assert storage.traffic == Traffic()


def test_a_driver_whose_answer_was_lost_holds_it(
    new_storage: Callable[[str], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = new_storage("memory")
    real = type(storage).put_once

    def lost(self: Storage, name: str, data: bytes) -> bool:
        real(self, name, data)
        return False

    monkeypatch.setattr(type(storage), "put_once", lost)
    started = time.monotonic()
    with lease(storage):
        assert time.monotonic() - started < 5


def test_a_driver_that_was_taken_over_neither_beats_nor_tidies(new_storage: Callable[[str], Storage]) -> None:
    storage = new_storage("memory")
    with lease(storage, **TIMES):
        storage.put(".driver/card.json", b'{"pid": 1, "host": "other", "id": "x", "beat": 7}')
        time.sleep(0.5)
    assert storage.read(".driver/card.json") == b'{"pid": 1, "host": "other", "id": "x", "beat": 7}'
