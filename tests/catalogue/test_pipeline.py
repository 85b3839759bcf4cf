"""The catalogue's steps: stopped anywhere they go on, cut anyhow they give the same bytes, and no damage is read over."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.catalogue.conftest import Vocabulary, contents, pass_through
from tests.conftest import exit_status

from mohole import artifact, catalogue, config
from mohole.catalogue import builder, features
from mohole.catalogue.header import Header, write_header
from mohole.catalogue.layout import BULK, HEADER
from mohole.catalogue.verify import verify_bytes
from mohole.corpus import Corpus
from mohole.errors import ArtifactError
from mohole.store import Store

N = 70
INPUTS = artifact.Inputs(kind="catalogue", config={}, seed=0)


@pytest.fixture
def world(make_corpus: Callable[..., Corpus], make_store: Callable[..., Store]) -> catalogue.InMemory:
    """60 documents and 70 latents, in three blocks, of which some never fire and one always does."""
    rng = np.random.default_rng(0)
    corpus = make_corpus([rng.integers(1, 12, rng.integers(3, 13)).tolist() for _ in range(60)])
    rows = np.maximum(rng.normal(size=(corpus.n_tokens, N)) - 1.5, 0).astype(np.float32)
    rows[:, [0, 40, N - 1]] = 0
    rows[:, 5] += 0.25
    return catalogue.InMemory(Vocabulary(), pass_through(N), corpus, make_store(rows))


@pytest.fixture
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts and several ranges."""
    monkeypatch.setattr(builder, "TOKENS_PER_PART", 100)
    monkeypatch.setattr(builder, "LATENTS_PER_RANGE", 32)


def make(path: Path, sources: catalogue.Sources) -> Path:
    with artifact.create(path, INPUTS, resume=True, bulk=BULK) as draft:
        catalogue.build(draft, sources, config.Catalogue(), seed=0)
    return path


@pytest.mark.usefixtures("in_small_steps")
def test_stopped_at_any_write_it_goes_on_to_the_same_bytes(
    world: catalogue.InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object that is written, and every commit, is once the last thing that an attempt does."""
    from mohole.storage.local import LocalStorage

    whole = contents(make(tmp_path / "whole", world))
    assert {"codes/000001.safetensors", "features/000002.bin"} < set(whole)
    left = 0
    for name in ("put", "put_once", "delete"):
        original = getattr(LocalStorage, name)

        def dies(self: LocalStorage, *arguments: object, original: Callable[..., object] = original) -> object:
            nonlocal left
            done = original(self, *arguments)
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return done

        monkeypatch.setattr(LocalStorage, name, dies)
    stops = 0
    for after in range(1, 1000):
        left = after
        path = tmp_path / f"stopped-{after}"
        try:
            make(path, world)
        except KeyboardInterrupt:
            stops += 1
            assert not path.exists()
            left = 0
            make(path, world)
            assert contents(path) == whole
        else:
            break
    assert stops > 30


@pytest.mark.usefixtures("in_small_steps")
def test_a_step_that_is_done_is_not_done_again(
    world: catalogue.InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builder, "write_header", stopped)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "out", world)
    monkeypatch.setattr(features, "gather", stopped)
    monkeypatch.setattr("mohole.catalogue.encode.encode", stopped)
    verify_bytes(make(tmp_path / "out", world))


@pytest.mark.usefixtures("in_small_steps")
def test_what_a_begun_catalogue_has_lost_is_named_and_made_again(
    world: catalogue.InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A commit says that a file was there, not that it still is: none is left out of what is finished."""
    expected = contents(make(tmp_path / "whole", world))

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    shard = "index/shards/sorted/value/000000-000000.safetensors"
    for step, lost in (
        ("sort_runs", ["runs/000001.safetensors", "runs/000002.counts"]),
        ("_for_ranges", ["codes/000001.safetensors"]),
        ("_for_ranges", [shard]),
        ("_finish", ["features/000001.bin", "columns/000002.safetensors"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(builder, step, stopped)
            with pytest.raises(KeyboardInterrupt):
                make(tmp_path / "out", world)
        capfd.readouterr()
        for name in lost:
            (tmp_path / ".out.partial" / name).unlink()
        with monkeypatch.context() as patch:
            patch.setattr(builder, step, stopped)
            with pytest.raises(KeyboardInterrupt):
                make(tmp_path / "out", world)
        said = capfd.readouterr().err
        assert [name for name in lost if f"{name}: missing" in said] == lost
    assert contents(make(tmp_path / "out", world)) == expected
    verify_bytes(tmp_path / "out")


def test_a_missing_shard_of_rows_is_named(world: catalogue.InMemory, tmp_path: Path) -> None:
    shard = next((tmp_path / "store").rglob("*0*.safetensors"))
    shard.unlink()
    with pytest.raises(ArtifactError, match=rf"{shard.name}: no such object; run the stage that writes it again"):
        make(tmp_path / "out", world)
    assert not (tmp_path / "out").exists()


def test_what_is_made_in_ranges_is_what_is_made_at_once(
    world: catalogue.InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features are equal one by one: files are cut at other places, so bytes cannot be."""
    one = catalogue.Catalogue.open(make(tmp_path / "one", world))
    monkeypatch.setattr(builder, "TOKENS_PER_PART", 64)
    monkeypatch.setattr(builder, "LATENTS_PER_RANGE", 32)
    monkeypatch.setattr(features, "_ENTRIES_AT_ONCE", 50)
    other = catalogue.Catalogue.open(make(tmp_path / "other", world))
    for latent in range(N):
        assert one.feature(latent) == other.feature(latent)
    np.testing.assert_array_equal(one.xy, other.xy)
    np.testing.assert_array_equal(one.family, other.family)


def test_firing_together_is_counted_over_all_tokens(world: catalogue.InMemory, tmp_path: Path) -> None:
    found = catalogue.Catalogue.open(make(tmp_path / "out", world))
    fires = np.asarray(found.codes.dense().numpy() > 0)
    for latent in range(N):
        both = fires.T.astype(int) @ fires[:, latent]
        for other, n_both, phi in found.feature(latent).together:
            assert n_both == both[other]
            expected = np.corrcoef(fires[:, latent], fires[:, other])[0, 1]
            assert phi == pytest.approx(expected, rel=2**-10)


def test_every_kind_of_damage_is_found(world: catalogue.InMemory, tmp_path: Path) -> None:
    path = make(tmp_path / "out", world)
    verify_bytes(path)
    bulk = [file for file in path.rglob("*") if file.is_file() and file.relative_to(path).parts[0] in BULK]
    rng = np.random.default_rng(1)
    for file in bulk:
        data = file.read_bytes()
        damaged = bytearray(data)
        damaged[int(rng.integers(len(data)))] ^= 0x10
        for wrong in (bytes(damaged), data[:-1]):
            file.write_bytes(wrong)
            with pytest.raises(ArtifactError):
                verify_bytes(path)
        file.unlink()
        with pytest.raises(ArtifactError, match=re.escape(file.name)):
            verify_bytes(path)
        file.write_bytes(data)
    verify_bytes(path)


def test_the_command_proves_a_catalogue_or_says_what_makes_it_again(
    world: catalogue.InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path / "out", world)
    assert exit_status(monkeypatch, "verify", path) == 0
    assert "every byte is as it was written" in capfd.readouterr().out
    assert exit_status(monkeypatch, "verify", path, "--mend") == 1
    file = path / "features/000000.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert exit_status(monkeypatch, "verify", path) == 1
    assert "000000.bin: checksum is wrong" in (said := capfd.readouterr().err)
    assert "mohole catalogue RECIPE --replace" in said


def test_a_damaged_feature_is_named_and_others_are_read(world: catalogue.InMemory, tmp_path: Path) -> None:
    path = make(tmp_path / "out", world)
    file = path / "features" / "000000.bin"
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)
    found = catalogue.Catalogue.open(path)
    assert found.feature(0).is_dead
    with pytest.raises(ArtifactError, match=r"000000.bin: block of latent 69: damaged"):
        found.feature(69)
    header = bytearray((path / "header.bin").read_bytes())
    header[3] ^= 1
    (path / "header.bin").write_bytes(header)
    with pytest.raises(ArtifactError, match=r"header.bin: bytes 0 to 65536 have changed"):
        catalogue.Catalogue.open(path).feature(0)


def test_a_header_of_34_million_latents_opens_at_once(tmp_path: Path) -> None:
    """What is read is one page of 64 KiB, not the file."""
    n = 34_000_000
    with (tmp_path / "header.bin").open("wb") as file:
        file.truncate(n * HEADER.itemsize)
    entry = np.zeros(1, dtype=HEADER)
    entry["count"] = 7
    with (tmp_path / "header.bin").open("r+b") as file:
        file.seek((n - 1) * HEADER.itemsize)
        file.write(entry.tobytes())
    import xxhash

    n_pages = -(-n * HEADER.itemsize // 65536)
    empty = xxhash.xxh3_64_intdigest(bytes(65536))
    pages = np.full(n_pages, empty, dtype="<u8")
    last = (tmp_path / "header.bin").stat().st_size - (n_pages - 1) * 65536
    pages[-1] = xxhash.xxh3_64_intdigest(bytes(last - HEADER.itemsize) + entry.tobytes())
    (tmp_path / "header.pages").write_bytes(pages.tobytes())
    header = Header(tmp_path, n)
    assert header.entry(n - 1)["count"] == 7
    assert header.entry(n // 2)["count"] == 0
    assert len(header._checked) <= 4


def test_a_header_is_read_as_it_was_written(tmp_path: Path) -> None:
    entries = np.zeros(5000, dtype=HEADER)
    entries["count"], entries["maximum"] = np.arange(5000), np.linspace(0, 1, 5000)
    write_header(tmp_path, entries)
    header = Header(tmp_path, 5000)
    assert header.entry(4321)["count"] == 4321
    np.testing.assert_array_equal(header.column("maximum"), entries["maximum"])
    with pytest.raises(ArtifactError, match="4999 latents take"):
        Header(tmp_path, 4999)


def test_a_catalogue_of_another_format_is_refused(
    world: catalogue.InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "out", world)
    monkeypatch.setattr("mohole.catalogue.catalogue.FORMAT", "catalogue 4")
    with pytest.raises(ArtifactError, match="'catalogue 3'; this mohole reads 'catalogue 4'; make the catalogue again"):
        catalogue.Catalogue.open(path)


def test_stretches_have_the_latents_own_activations_whatever_the_pieces(
    world: catalogue.InMemory, tmp_path: Path
) -> None:
    found = catalogue.Catalogue.open(make(tmp_path / "out", world))
    for latent in (1, 5, 69 - 1):
        feature = found.feature(latent)
        for example in [*feature.top, *(e for interval in feature.intervals for e in interval.examples)]:
            exact = found.activations(latent, example.start, example.end)
            np.testing.assert_allclose(example.activations, exact, rtol=2**-11, atol=2**-25 * feature.maximum)
            assert example.activation > 0
