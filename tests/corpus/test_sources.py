"""Sources: what is read does not depend on how a file is cut into blocks, and what cannot be read is named with its place."""

import gzip
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mohole.config import DatasetCorpus, TextCorpus
from mohole.corpus.documents import pieces_of
from mohole.corpus.plain import decode, split
from mohole.corpus.records import _lines
from mohole.corpus.sources import display_name, identity, read_documents
from mohole.errors import CorpusError


def texts(path: Path | str, **settings: Any) -> list[str]:
    return [document.text for document in read_documents(TextCorpus(path=str(path), **settings))]


def refusal(path: Path | str, **settings: Any) -> str:
    with pytest.raises(CorpusError) as caught:
        texts(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def blocks_of(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    return (data[start:end] for start, end in pairwise(places))


letters = st.text(alphabet="ab \n\r€𝄞", max_size=60)
cuts = st.lists(st.integers(0, 300), max_size=12)


@given(text=letters, cuts=cuts, separator=st.sampled_from(["\n\n", "ab", "aba", "", "€"]), limit=st.integers(1, 20))
@example(text="x\r\n\r\ny", cuts=[2], separator="\n\n", limit=20)
def test_where_a_file_is_cut_into_blocks_changes_nothing(
    text: str, cuts: list[int], separator: str, limit: int
) -> None:
    """Against the whole text in memory: characters, line ends and separators may straddle blocks."""
    whole = text.replace("\r\n", "\n")
    parts = whole.split(separator) if separator else [whole]
    expected = [piece for part in parts for piece in pieces_of(part, limit)]
    assert list(split(decode(blocks_of(text.encode(), cuts), "f"), separator, limit)) == expected


@given(text=letters, limit=st.integers(1, 20))
def test_a_long_text_is_cut_into_pieces_that_are_the_text_again(text: str, limit: int) -> None:
    pieces = list(pieces_of(text, limit))
    assert all(len(piece) <= limit and not piece.isspace() for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    if len(text) <= limit and text.strip():
        assert pieces == [text]


def test_a_long_text_is_cut_at_a_newline_else_at_a_space_else_anywhere() -> None:
    assert list(pieces_of("one two\nthree four", 14)) == ["one two\n", "three four"]
    assert list(pieces_of("one two three", 9)) == ["one two ", "three"]
    assert list(pieces_of("onetwothree", 4)) == ["onet", "woth", "ree"]


def test_a_long_document_of_any_format_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three\n\nfour", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"text": "one two three"}\n{"text": "four"}', encoding="utf-8")
    for file in ("a.txt", "a.jsonl"):
        assert texts(tmp_path / file, max_document_chars=9) == ["one two ", "three", "four"]


@given(lines=st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line), max_size=9), cuts=cuts)
def test_lines_are_the_same_whatever_the_blocks(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(lines)
    assert list(_lines(blocks_of(data, cuts), "f")) == data.split(b"\n")


@given(good=st.text(alphabet="a€𝄞", max_size=9), cuts=cuts)
def test_the_first_byte_that_is_no_text_is_named(good: str, cuts: list[int]) -> None:
    data = b"\xef\xbb\xbf" + good.encode() + b"\xffabc"
    with pytest.raises(CorpusError, match=rf"f: not UTF-8 text \(byte {3 + len(good.encode())}\)"):
        list(decode(blocks_of(data, cuts), "f"))


def test_a_text_that_ends_inside_a_character_is_named() -> None:
    with pytest.raises(CorpusError, match=r"byte 2\b"):
        list(decode([b"ab\xe2", b"\x82"], "f"))


def records(folder: Path, values: list[object], name: str = "a.jsonl") -> Path:
    path = folder / name
    data = "".join(json.dumps(value) + "\n" for value in values).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson"])
def test_json_lines_give_their_field_and_null_and_empty_lines_give_nothing(tmp_path: Path, name: str) -> None:
    path = records(tmp_path, [{"text": "eins\n\nzwei", "story": "€"}, {"text": None, "story": "a"}], name)
    assert texts(path) == ["eins\n\nzwei"]
    assert texts(path, field="story") == ["€", "a"]
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}\r\n\n  \n{"text": " "}\n{"text": "y"}')
    assert texts(tmp_path / "b.jsonl") == ["x", "y"]


def test_half_a_character_in_json_becomes_the_replacement_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud83db\\ud83d\\ude00"}', encoding="utf-8")
    assert texts(tmp_path / "a.jsonl") == ["a\ufffdb\U0001f600"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"text": "a"', "line 2: not JSON (Expecting ',' delimiter, column 13)"),
        (b"plain text", "line 2: not JSON"),
        (b"[" * 100_000, "line 2: not JSON"),
        (b'["a"]', "line 2: list, not an object with a key 'text'"),
        (b'{"txt": "a"}', "line 2: no field 'text'; did you mean 'txt'? it has txt; set corpus.field"),
        (b'{"text": 3}', "line 2: 'text' holds int, not text"),
        (b'{"text": "\xff"}', "line 2: not UTF-8 text (byte 25 of the file)"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "ok"}\n' + line + b"\n")
    assert says in refusal(path)


def test_a_packed_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = records(tmp_path, [{"text": f"{i} " * 50} for i in range(500)], "a.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-100])
    assert "a.jsonl.gz: damaged or cut short" in refusal(path)
    path.write_bytes(b"not gzip at all")
    assert "a.jsonl.gz: damaged or cut short" in refusal(path)


def test_zstd_is_read_where_its_package_is_and_named_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install zstandard" in refusal(path)
    monkeypatch.undo()
    zstandard = pytest.importorskip("zstandard")
    whole = zstandard.compress(b'{"text": "%s"}\n' % b" ".join(b"%d" % n for n in range(9000)))
    for cut in (b"garbage" * 9, whole[: len(whole) // 2], whole[:-1], whole + whole[:20]):
        path.write_bytes(cut)
        assert "damaged or cut short" in refusal(path)
    frames = [zstandard.compress(b'{"text": "one"}\n'), zstandard.compress(b'{"text": "two"}\n')]
    path.write_bytes(b"".join(frames))
    assert texts(path) == ["one", "two"]


def parquet(folder: Path, columns: dict[str, list[Any]], name: str = "a.parquet") -> Path:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    write_table(pa.table(columns), folder / name, row_group_size=50)
    return folder / name


def test_parquet_gives_its_column_over_all_row_groups(tmp_path: Path) -> None:
    stories = [f"story {i}" if i % 7 else None for i in range(333)]
    path = parquet(tmp_path, {"text": stories, "n": list(range(333))})
    assert texts(path) == [story for story in stories if story]


def test_what_parquet_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path, {"content": ["a"], "label": [1]})
    assert "no field 'text'; did you mean 'content'? it has content, label; set corpus.field" in refusal(path)
    assert "row 1: 'label' holds int, not text" in refusal(path, field="label")
    path.write_bytes(path.read_bytes()[:-20])
    assert "not a readable Parquet file" in refusal(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'mohole[parquet]'" in refusal(path)


def test_a_folder_without_text_files_is_read_by_its_records(tmp_path: Path) -> None:
    records(tmp_path, [{"text": "b"}], "b.jsonl")
    parquet(tmp_path, {"text": ["a"]})
    assert texts(tmp_path) == ["a", "b"]
    (tmp_path / "c.txt").write_text("c", encoding="utf-8")
    assert texts(tmp_path) == ["c"]
    assert texts(tmp_path / "*") == ["a", "b", "c"]


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    """A folder of a file system that is not this machine's."""
    place = f"memory://{tmp_path.name}"
    yield place
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def put(url: str, data: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(data)


def test_a_url_is_read_as_a_file_a_folder_or_a_pattern(remote: str, tmp_path: Path) -> None:
    put(f"{remote}/b.txt", b"three\n\nfour")
    put(f"{remote}/a.txt", b"one\n\ntwo")
    put(f"{remote}/c.jsonl.gz", gzip.compress(b'{"text": "five"}\n'))
    put(f"{remote}/d.parquet", parquet(tmp_path, {"text": ["six"]}).read_bytes())
    assert texts(f"{remote}/a.txt") == ["one", "two"]
    assert texts(remote) == ["one", "two", "three", "four"]
    assert texts(f"{remote}/c.jsonl.gz") == ["five"]
    assert texts(f"{remote}/*.parquet") == ["six"]
    (tmp_path / "e.txt").write_text("seven", encoding="utf-8")
    assert texts(f"file://{tmp_path}/e.txt") == ["seven"]


def test_a_url_without_text_is_named(remote: str) -> None:
    put(f"{remote}/a.bin", b"")
    assert "no such file there" in refusal(f"{remote}/nothing.txt")
    assert "no .txt, .jsonl or .parquet files there" in refusal(remote)
    assert "cannot be read" in refusal("nosuchscheme://x/y.txt")
    put(f"{remote}/a.jsonl", b"x")
    assert "/a.jsonl: line 1: not JSON" in refusal(f"{remote}/a.jsonl")


def test_an_identity_changes_with_the_content_and_not_with_the_place(tmp_path: Path, remote: str) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("one", encoding="utf-8")
    one, other = (TextCorpus(path=str(tmp_path / folder / "a.txt")) for folder in ("x", "y"))
    assert identity(one) == identity(other)
    assert display_name(one) == display_name(other) == "a.txt"
    before = identity(one)
    Path(one.path).write_text("two", encoding="utf-8")
    assert identity(one) != before

    put(f"{remote}/a.txt", b"one")
    there = TextCorpus(path=f"{remote}/a.txt")
    before = identity(there)
    assert before == identity(there) == json.loads(json.dumps(before))
    put(f"{remote}/a.txt", b"two")
    assert identity(there) != before


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local dataset of two splits; the packages' own caches go to the test's folder."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "stories"
    folder.mkdir()
    records(folder, [{"text": f"story {i}", "n": i} for i in range(5)], "train.jsonl")
    records(folder, [{"text": "held back", "n": 0}], "test.jsonl")
    return folder


def dataset_texts(name: Path | str, **settings: Any) -> list[str]:
    return [document.text for document in read_documents(DatasetCorpus(name=str(name), **settings))]


@pytest.mark.filterwarnings("default")  # what `datasets` warns of is its own
def test_a_dataset_folder_file_or_saved_dataset_is_read_without_the_hub(dataset: Path, tmp_path: Path) -> None:
    import datasets

    stories = [f"story {i}" for i in range(5)]
    assert dataset_texts(dataset) == dataset_texts(dataset / "train.jsonl") == stories
    assert dataset_texts(dataset, split="test") == ["held back"]
    whole = datasets.load_dataset(str(dataset))
    whole.save_to_disk(tmp_path / "splits")
    whole["train"].save_to_disk(tmp_path / "one")
    assert dataset_texts(tmp_path / "splits") == dataset_texts(tmp_path / "one") == stories

    before = identity(DatasetCorpus(name=str(dataset)))
    assert before == identity(DatasetCorpus(name=str(dataset)))
    records(dataset, [{"text": "changed"}], "train.jsonl")
    assert identity(DatasetCorpus(name=str(dataset))) != before


@pytest.mark.filterwarnings("default")
def test_what_a_dataset_lacks_is_named(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: Path | str, **settings: Any) -> str:
        with pytest.raises(CorpusError) as caught:
            dataset_texts(name, **settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no field 'txt'; did you mean 'text'? it has text, n" in refused(dataset, field="txt")
    assert "row 1 of train: 'n' holds int, not text" in refused(dataset, field="n")
    assert "Available splits: ['train', 'test']" in refused(dataset, split="dev")
    assert "corpus.allow_download = true" in refused("nobody/nothing")
    (dataset / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files: https://example.invalid/x.jsonl\n---\n", encoding="utf-8"
    )
    assert "its card names https://example.invalid/x.jsonl; allow the download" in refused(dataset)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'mohole[datasets]'" in refused(dataset)


def test_the_hub_is_asked_only_where_it_is_allowed(dataset: Path) -> None:
    import datasets.config
    import huggingface_hub.constants as hub

    def offline() -> tuple[bool, bool]:
        return hub.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE

    before = offline()
    reading = read_documents(DatasetCorpus(name=str(dataset)))
    next(reading)
    assert offline() == (True, True)
    del reading
    assert offline() == before
