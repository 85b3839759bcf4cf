"""What is special to a folder: direct transfers and doing without them, full and forbidden disks, open files."""

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.storage import Storage, open_storage

MIB = 1 << 20
NOBODY = 65534


def write(storage: Storage, name: str, data: bytes) -> None:
    with storage.writer(name, len(data)) as writer:
        writer.write(data)


def drafts(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*.tmp")]


def is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


def test_places_that_mean_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (
        "a b",
        Path("a b"),
        tmp_path / "a b",
        f"file://{tmp_path}/a%20b",
        f"file://localhost{tmp_path}/a%20b",
    ):
        storage = open_storage(place)
        assert (storage.url, storage.local) == (str(tmp_path / "a b"), tmp_path / "a b")
    assert list(tmp_path.iterdir()) == []  # opening makes nothing


def test_a_file_url_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="names the machine 'server'"):
        open_storage("file://server/data")


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this platform has no direct transfers")
def test_a_disk_that_accepts_the_flag_and_refuses_the_transfer_is_used_through_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def strict(real):  # as a disk with sectors larger than we align to
        def call(descriptor, *arguments):
            if is_direct(descriptor):
                refused.append(real.__name__)
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(descriptor, *arguments)

        return call

    monkeypatch.setattr(os, "pwrite", strict(os.pwrite))
    monkeypatch.setattr(os, "preadv", strict(os.preadv))
    storage, data, target = open_storage(folder), os.urandom(9 * MIB + 5), bytearray(9 * MIB)
    write(storage, "object", data)
    storage.read_into("object", 5, target)
    assert target == data[5:]
    assert set(refused) in ({"pwrite", "preadv"}, set())  # none where the folder's filesystem has no direct transfers


def test_a_platform_without_direct_transfers_gives_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    storage, data, target = open_storage(folder), os.urandom(9 * MIB + 5), bytearray(9 * MIB)
    write(storage, "object", data)
    storage.read_into("object", 5, target)
    assert target == data[5:]


@pytest.mark.parametrize("good_blocks", [0, 1, 3])
def test_an_error_of_the_writing_thread_reaches_the_caller(
    folder: Path, monkeypatch: pytest.MonkeyPatch, good_blocks: int
) -> None:
    real, calls = os.pwrite, []

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) > good_blocks:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(open_storage(folder), "a/object", bytes(30 * MIB))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(folder / "a/object"))
    assert drafts(folder) == []


def test_a_short_write_is_gone_on_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:123_456], offset))
    storage, data = open_storage(folder), os.urandom(MIB)
    write(storage, "object", data)
    assert storage.read("object") == data


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """4 MiB, which only root can mount."""
    place = tmp_path / "small"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_an_error_with_the_name_and_leaves_nothing(small_disk: Path) -> None:
    storage = open_storage(small_disk)
    storage.put("before", b"x")
    for use in (
        lambda: write(storage, "object", bytes(20 * MIB)),
        lambda: storage.put("object", bytes(5 * MIB)),
        lambda: storage.put_once("object", bytes(5 * MIB)),
    ):
        with pytest.raises(OSError, match="No space left") as caught:
            use()
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(small_disk / "object"))
    assert storage.names() == ["before"]
    assert drafts(small_disk) == []
    write(storage, "object", bytes(3 * MIB))  # what failed has given its space back


@pytest.fixture
def forbidden(folder: Path) -> Iterator[Path]:
    """A folder that we may look at and not use."""
    folder.mkdir()
    (folder / "object").write_bytes(b"secret")
    (folder / "object").chmod(0)
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)


def test_what_is_not_permitted_is_named(forbidden: Path) -> None:
    storage = open_storage(forbidden)
    for use in (
        lambda: storage.read("object"),
        lambda: storage.read_into("object", 0, bytearray(1)),
        lambda: storage.put("new", b""),
        lambda: storage.put_once("new", b""),
        lambda: write(storage, "new", b"x"),
        lambda: storage.delete(["object"]),
    ):
        with pytest.raises(ArtifactError, match=r"/folder.*: permission denied; change its mode or its owner$"):
            use()


def test_a_file_where_a_folder_is_needed_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = open_storage(tmp_path / "file")
    for use in (lambda: storage.put("object", b""), lambda: storage.read("object"), storage.names):
        with pytest.raises(ArtifactError, match=r"file.*: not what is needed there"):
            use()
    assert not storage.exists("object")


def test_a_filesystem_without_links_is_refused_with_the_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StageError, match="its filesystem has no hard links"):
        open_storage(folder).put_once("object", b"")
    assert drafts(folder) == []


def test_a_link_whose_answer_was_lost_counts_as_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def repeated(*arguments: Path) -> None:  # as NFS does it when the first answer got lost
        real(*arguments)
        real(*arguments)

    monkeypatch.setattr(os, "link", repeated)
    assert open_storage(folder).put_once("object", b"x")


def n_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this platform does not list open files")
def test_few_files_stay_open_and_none_after_close(folder: Path) -> None:
    storage = open_storage(folder)
    for number in range(80):
        storage.put(f"{number}", bytes([number]) * 10)
    before = n_open_files()
    for number in range(80):
        target = bytearray(10)
        storage.read_into(f"{number}", 0, target)
        assert target == bytes([number]) * 10
    assert n_open_files() - before == 64
    storage.delete(["79"])
    assert n_open_files() - before == 63
    storage.close()
    assert n_open_files() == before
    storage.read_into("0", 0, bytearray(10))
    del storage
    assert n_open_files() == before


def test_threads_that_close_each_others_files_read_the_right_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mohole.storage.local._N_OPEN_FILES", 2)
    storage = open_storage(folder)
    for number in range(6):
        storage.put(f"{number}", bytes([number]) * 300_000)

    def read(turn: int) -> bool:
        number, target = turn % 6, bytearray(280_000 if turn % 2 else 1_000)
        storage.read_into(f"{number}", turn, target)
        return target == bytes([number]) * len(target)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(600)))
    assert storage.traffic.n_reads == 600


def test_an_object_whose_name_looks_unfinished_is_not_listed_and_is_swept(folder: Path) -> None:
    folder.mkdir()
    for name in (".object.12-0123456789ab.tmp", ".driver.lock", ".mine"):
        (folder / name).write_bytes(b"")
    storage = open_storage(folder)
    assert storage.names() == []
    assert storage.sweep() == 1
    assert sorted(path.name for path in folder.iterdir()) == [".driver.lock", ".mine"]
