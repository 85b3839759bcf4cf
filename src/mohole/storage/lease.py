"""One driver at a time for a storage. A courtesy to the second one: tasks are idempotent, so no result depends on it."""

import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from mohole.errors import ArtifactError, MoholeError
from mohole.storage.storage import Storage

_LOCK = ".driver.lock"
_FOLDER, _CARD = ".driver", "card.json"


@contextmanager
def lease(storage: Storage, *, beat_seconds: float = 10.0, stale_seconds: float = 30.0) -> Iterator[None]:
    """Hold the storage against other drivers until the block ends.

    In a folder it is a lock that goes with the process, however it ends (a process forked from it and still alive keeps
    it). Behind a URL it is an object rewritten every `beat_seconds`: one that has not changed for `stale_seconds` belongs
    to a dead driver and is taken over, so that starting after a crash waits that long. There two drivers may, for a
    moment of bad luck or a long silence of the network, both believe they hold it: they would do work twice, not wrong.

    Raises:
        ArtifactError: another process holds it, which is named.
    """
    if storage.local is not None:
        with _lock(storage.local):
            yield
    else:
        with _heartbeat(storage, beat_seconds, stale_seconds):
            yield


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """The file stays: who removed it could remove the one that another process has just locked."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                error.filename = str(path)
                raise
            raise _refusal(str(folder), os.pread(descriptor, 4096, 0)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_new_card()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _heartbeat(storage: Storage, beat_seconds: float, stale_seconds: float) -> Iterator[None]:
    place = storage.folder(_FOLDER)  # with counters of its own: beats are no traffic of the job
    card = _new_card()
    _take(place, storage.url, card, stale_seconds)
    is_over = Event()
    thread = Thread(target=_beat, args=(place, card, beat_seconds, is_over), name="mohole-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(timeout=stale_seconds)
        with suppress(MoholeError):  # unreachable now: the next driver finds it stale
            if _is_mine(_read(place), card):
                place.delete([_CARD])


def _take(place: Storage, url: str, card: dict[str, Any], stale_seconds: float) -> None:
    """Put our card there, if nobody's is or the one there is stale."""
    while not place.put_once(_CARD, json.dumps(card).encode()):
        there = _read(place)
        if there is None:
            continue  # its holder has just ended
        if _is_mine(there, card):
            return  # the answer to our own `put_once` was lost
        if _watch(place, there, stale_seconds):
            raise _refusal(url, there)
        if _read(place) != there:
            continue
        place.put(_CARD, json.dumps(card).encode())
        time.sleep(stale_seconds / 30)  # who else took it over in the same moment has put its card by now
        if not _is_mine(there := _read(place), card):
            raise _refusal(url, there or b"")
        return


def _watch(place: Storage, seen: bytes, seconds: float) -> bool:
    """Does the card beat within this time? False too when it is gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(seconds / 30)
        now = _read(place)
        if now != seen:
            return now is not None
    return False


def _beat(place: Storage, card: dict[str, Any], seconds: float, is_over: Event) -> None:
    while not is_over.wait(seconds):
        with suppress(MoholeError):  # unreachable for a moment: tried again at the next beat
            if not _is_mine(_read(place), card):
                return  # taken over while we could not beat; it is the other's now
            card["beat"] += 1
            place.put(_CARD, json.dumps(card).encode())


def _new_card() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "id": secrets.token_hex(8), "beat": 0}


def _read(place: Storage) -> bytes | None:
    try:
        return place.read(_CARD) if place.exists(_CARD) else None
    except ArtifactError:
        if place.exists(_CARD):
            raise
        return None  # it went between the two


def _is_mine(there: bytes | None, card: dict[str, Any]) -> bool:
    return there is not None and card["id"].encode() in there


def _refusal(url: str, card: bytes) -> ArtifactError:
    try:
        holder = json.loads(card)
        who = f"another process (pid {holder['pid']} on {holder['host']})"
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        who = "another process"  # it has the lock and has not written its card yet
    return ArtifactError(f"{url}: {who} is working on it; wait for that one")
