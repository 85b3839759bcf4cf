"""What must be true of every storage: whole or not at all, once, exact bytes, exact counts, errors that name the object."""

import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mohole.errors import ArtifactError
from mohole.storage import Storage, Traffic, open_storage

KINDS = ("local", "memory", "s3")
MIB = 1 << 20
Start = Callable[..., "subprocess.Popen[str]"]


def pattern(n_bytes: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(n_bytes)


def write(storage: Storage, name: str, data: bytes) -> None:
    with storage.writer(name, len(data)) as writer:
        writer.write(data)


@pytest.fixture(scope="module")
def by_kind(new_storage: Callable[[str], Storage]) -> Callable[[str], Storage]:
    opened: dict[str, Storage] = {}
    return lambda kind: opened.setdefault(kind, new_storage(kind))


# Sizes around what matters inside: 4 KiB alignment, 256 KiB where direct transfers begin, 8 MiB blocks; ranges of a GET.
EDGES = {"local": [256 << 10, 8 * MIB], "memory": [4096], "s3": [MIB]}


def sizes(kind: str) -> st.SearchStrategy[int]:
    around = st.sampled_from(EDGES[kind]).flatmap(lambda edge: st.integers(max(edge - 4097, 0), edge + 4097))
    return st.one_of(st.integers(0, 10_000), around)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(data=st.data())
def test_what_was_written_in_pieces_is_read_in_ranges(
    by_kind: Callable[[str], Storage], kind: str, data: st.DataObject
) -> None:
    size = data.draw(sizes(kind), label="size")
    storage, content = by_kind(kind), pattern(size, size)
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=3), label="cuts"))
    with storage.writer("a/object", size) as writer:
        for start, end in zip([0, *cuts], [*cuts, size], strict=True):
            writer.write(memoryview(content)[start:end])
    assert storage.size("a/object") == size
    first, last = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size)), label="range"))
    target = bytearray(last - first)
    storage.read_into("a/object", first, target)
    assert target == content[first:last]
    assert storage.read("a/object") == content


def test_an_array_of_any_shape_is_written_and_filled(storage: Storage) -> None:
    rows = np.arange(300_000, dtype=np.float32).reshape(1000, 300)
    with storage.writer("rows", rows.nbytes) as writer:
        writer.write(rows[:500].data)
        writer.write(rows[:0].data)
        writer.write(rows[500:].data)
    back = np.zeros_like(rows)
    storage.read_into("rows", 0, back.data)
    np.testing.assert_array_equal(back, rows)


def test_a_buffer_may_be_used_again_as_soon_as_it_is_written(storage: Storage) -> None:
    block = bytearray(3 * MIB)
    with storage.writer("blocks", 9 * MIB) as writer:
        for value in range(3):
            block[:] = bytes([value]) * len(block)
            writer.write(block)
    assert storage.read("blocks") == b"".join(bytes([value]) * 3 * MIB for value in range(3))


def test_many_parts_make_one_object(new_storage: Callable[[str], Storage]) -> None:
    storage, content = new_storage("s3"), pattern(12 * MIB + 5)
    write(storage, "long", content)
    target = bytearray(5 * MIB)
    storage.read_into("long", 2 * MIB + 1, target)
    assert storage.size("long") == len(content)
    assert target == content[2 * MIB + 1 : 7 * MIB + 1]


def test_nothing_appears_when_the_block_raises(storage: Storage) -> None:
    storage.put("object", b"old")
    for name in ("object", "new"):
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012, SIM117
            with storage.writer(name, 12 * MIB) as writer:
                writer.write(bytes(11 * MIB))
                raise KeyError("mine")
    assert storage.names() == ["object"]
    assert storage.read("object") == b"old"
    assert storage.sweep() == 0


def test_an_error_of_the_caller_is_not_taken_for_ours(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError, match="the caller's"), storage.writer("object", 1):
        raise FileNotFoundError("the caller's")


@pytest.mark.parametrize("n_written", [0, 9, 11, 9_000_000])
def test_fewer_or_more_bytes_than_announced_are_refused(storage: Storage, n_written: int) -> None:
    with pytest.raises(ValueError, match="object: announced as 10 bytes"), storage.writer("object", 10) as writer:
        writer.write(bytes(n_written))
    assert storage.names() == []


HALF_WRITER = """
import sys, time
from mohole.storage import open_storage, remote
remote.PART_BYTES = 5 << 20
with open_storage(sys.argv[1]).writer("level0/object", 20 << 20) as writer:
    writer.write(bytes(19 << 20))
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_writer_killed_half_way_leaves_no_object(shared_storage: Storage, start: Start) -> None:
    writer = start(HALF_WRITER, shared_storage.url)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert shared_storage.names() == []
    assert not shared_storage.exists("level0/object")
    is_local = shared_storage.local is not None
    assert shared_storage.sweep() == (1 if is_local else 0)
    assert shared_storage.sweep() == 0
    if shared_storage.local is not None:
        assert [path for path in shared_storage.local.rglob("*") if path.is_file()] == []


def test_of_eight_threads_one_is_first(storage: Storage) -> None:
    barrier = Barrier(8)

    def put(number: int) -> bool:
        barrier.wait()
        return storage.put_once("tasks/one.json", str(number).encode())

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(put, range(8)))
    assert answers.count(True) == 1
    assert storage.read("tasks/one.json") == str(answers.index(True)).encode()
    assert storage.traffic.n_writes == 1
    assert storage.names() == ["tasks/one.json"]


RACER = """
import sys
from mohole.storage import open_storage
storage = open_storage(sys.argv[1])
storage.names()
print("ready", flush=True)
while not storage.exists("go"):
    pass
print(storage.put_once("one", sys.argv[2].encode()), flush=True)
"""


def test_of_eight_processes_one_is_first(new_storage: Callable[[str], Storage], start: Start) -> None:
    storage = new_storage("local")
    racers = [start(RACER, storage.url, number) for number in range(8)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    storage.put("go", b"")
    answers = [racer.communicate()[0] for racer in racers]
    assert sorted(answers) == ["False\n"] * 7 + ["True\n"]
    assert storage.read("one") == str(answers.index("True\n")).encode()


def test_names_are_sorted_recursive_and_begin_with_the_prefix(storage: Storage) -> None:
    for name in ("b", "a/2", "a/10", "ab", "a/c/x", ".driver/card", "a/.hidden"):
        storage.put(name, b"")
    assert storage.names() == ["a/10", "a/2", "a/c/x", "ab", "b"]
    assert storage.names("a") == ["a/10", "a/2", "a/c/x", "ab"]
    assert storage.names("a/") == ["a/10", "a/2", "a/c/x"]
    assert storage.names("a/c/x") == ["a/c/x"]
    assert storage.names("z/y") == []


def test_names_see_what_another_has_just_written(storage: Storage) -> None:
    other = open_storage(storage.url)
    assert other.names() == []
    storage.put("a/new", b"")
    assert other.names() == ["a/new"]
    storage.delete(["a/new"])
    assert other.names() == []
    assert not other.exists("a/new")


def test_a_folder_is_a_storage_of_its_own(storage: Storage) -> None:
    inner = storage.folder("level1").folder("run-3")
    inner.put("object", b"x")
    assert storage.names() == ["level1/run-3/object"]
    assert open_storage(inner.url).read("object") == b"x"
    assert (storage.traffic, inner.traffic) == (Traffic(), Traffic(bytes_written=1, n_writes=1))


def test_put_replaces_and_put_once_does_not(storage: Storage) -> None:
    storage.put("object", b"first")
    storage.put("object", b"second")
    assert not storage.put_once("object", b"third")
    assert storage.read("object") == b"second"


def test_what_replaced_an_object_is_read(storage: Storage) -> None:
    other, target = open_storage(storage.url), bytearray(5)
    for content in (b"first", b"other"):
        other.put("object", content)
        storage.read_into("object", 0, target)
        assert target == content


def test_traffic_is_what_was_asked_for_and_given(storage: Storage) -> None:
    write(storage, "object", bytes(1000))
    storage.put("small", b"123")
    storage.put_once("once", b"12345")
    storage.put_once("once", b"another")
    storage.read("small")
    storage.read_into("object", 10, bytearray(300))
    storage.size("object"), storage.exists("object"), storage.names()
    with pytest.raises(ArtifactError):
        storage.read("missing")
    with pytest.raises(ArtifactError):
        storage.read_into("object", 0, bytearray(1001))
    with pytest.raises(KeyError), storage.writer("object", 5):
        raise KeyError
    storage.delete(["small"])
    assert storage.traffic == Traffic(bytes_read=303, bytes_written=1008, n_reads=2, n_writes=3)


@pytest.mark.parametrize(
    "use",
    [
        lambda storage: storage.read("a/missing"),
        lambda storage: storage.size("a/missing"),
        lambda storage: storage.read_into("a/missing", 0, bytearray(5)),
        lambda storage: storage.read_into("a/missing", 0, bytearray(MIB)),
        lambda storage: storage.read_into("a/missing", 0, bytearray()),
    ],
)
def test_a_missing_object_is_named(storage: Storage, use: Callable[[Storage], object]) -> None:
    with pytest.raises(ArtifactError, match="a/missing: no such object") as caught:
        use(storage)
    assert str(caught.value).startswith(storage.url)
    assert not storage.exists("a/missing")
    assert not storage.exists("a")
    storage.delete(["a/missing"])


@pytest.mark.parametrize(("offset", "n_bytes"), [(0, 1001), (999, 2), (1000, 1), (5000, 300_000), (0, 300_000)])
def test_a_truncated_object_is_named_with_where_it_ends(storage: Storage, offset: int, n_bytes: int) -> None:
    storage.put("object", bytes(1000))
    with pytest.raises(ArtifactError, match=r"object: truncated, it ends at byte 1000 and byte \d+ is needed"):
        storage.read_into("object", offset, bytearray(n_bytes))


@pytest.mark.parametrize("name", ["", "/etc/passwd", "a//b", "../up", "a/../../up", "a/", "."])
def test_a_name_cannot_leave_the_storage(storage: Storage, name: str) -> None:
    for use in (storage.read, storage.folder, lambda name: storage.put(name, b"")):
        with pytest.raises(ValueError, match="not a name of an object"):
            use(name)


def test_the_url_opens_the_same_storage_in_another_process(shared_storage: Storage, start: Start) -> None:
    code = "import sys; from mohole.storage import open_storage; open_storage(sys.argv[1]).put('object', b'x')"
    assert start(code, shared_storage.url).wait() == 0
    assert shared_storage.read("object") == b"x"


def test_importing_it_loads_nothing_heavy(start: Start) -> None:
    code = (
        "import sys, mohole.storage as s; s.open_storage('/tmp'); print({'torch', 'numpy', 'fsspec'} & {*sys.modules})"
    )
    assert start(code).communicate()[0] == "set()\n"
