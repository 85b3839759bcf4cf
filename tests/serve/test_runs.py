"""Which folders are served, under which names, and what is refused before anything is."""

import shutil
from pathlib import Path

import pytest
from tests.report.run_folder import HOOKPOINTS, finished, remake

from mohole import artifact
from mohole.catalogue.verify import check_sizes
from mohole.errors import ArtifactError, ConfigError
from mohole.serve.errors import Refusal
from mohole.serve.runs import open_runs
from mohole.tensors import open_tensors


@pytest.fixture
def copy(pristine_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine_run, tmp_path / "run")


def test_names_are_fit_for_addresses_and_unique(pristine_run: Path, tmp_path: Path) -> None:
    folders = [tmp_path / parent / name for parent, name in (("a", "my run!"), ("b", "my run!"), ("c", "Бег.1"))]
    for folder in folders:
        shutil.copytree(pristine_run, folder)
    served = open_runs(folders)
    assert list(served.runs) == ["my-run", "my-run-2", "Бег.1"]
    assert [run.folder for run in served.runs.values()] == folders
    assert all(tuple(run.hookpoints) == HOOKPOINTS for run in served.runs.values())


def test_a_run_that_is_not_finished_is_refused_by_name(copy: Path) -> None:
    shutil.rmtree(copy / HOOKPOINTS[1] / "catalogue")
    with pytest.raises(ArtifactError, match=rf"{HOOKPOINTS[1]}: not finished, it has no catalogue"):
        open_runs([copy])


def test_what_is_no_run_is_refused_by_name(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for place, words in (
        (tmp_path / "empty", "no hookpoint with a dictionary"),
        (tmp_path / "nothing", "no such folder"),
        (tmp_path / "file", "a file"),
        (copy / "corpus", "an artifact, not a run"),
    ):
        with pytest.raises(ArtifactError, match=rf"{place}: {words}"):
            open_runs([place])
    with pytest.raises(ConfigError, match="named twice"):
        open_runs([copy, copy.parent / "x" / ".." / "run"])
    with pytest.raises(ConfigError, match="no run"):
        open_runs([])


def test_a_damaged_catalogue_is_named(copy: Path) -> None:
    folder = copy / HOOKPOINTS[0] / "catalogue"
    file = folder / next(iter(artifact.read_manifest(folder).files))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=file.name):
        open_runs([copy])


def test_a_catalogue_that_lacks_a_part_is_refused_by_the_parts_name(copy: Path) -> None:
    """The parts that no manifest lists, which are read when they are asked for."""
    for file in (
        "features/000000.bin",
        "codes/000000.safetensors",
        "index/shards/sorted/value/000000-000000.safetensors",
    ):
        part = copy / HOOKPOINTS[0] / "catalogue" / file
        data = part.read_bytes()
        part.write_bytes(data[:-1])
        with pytest.raises(ArtifactError, match=f"{Path(file).name}: .*delete .*catalogue and make it again"):
            check_sizes(part.parents[len(Path(file).parts) - 1])
        part.unlink()
        with pytest.raises(ArtifactError, match=Path(file).name):
            open_runs([copy])
        part.write_bytes(data)
    open_runs([copy])


def test_a_changed_byte_of_the_corpus_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be another text under the same activations."""
    for name in ("corpus.json", "corpus.safetensors"):
        file = copy / "corpus" / name
        data = file.read_bytes()
        file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        with pytest.raises(ArtifactError, match=f"{name}: checksum is wrong"):
            open_runs([copy])
        file.write_bytes(data)
    monkeypatch.setattr("mohole.serve.runs.READ_AT_ONCE_BYTES", len(data) - 1)
    tokens = open_tensors(file)["tokens"]
    at = data.index(tokens.tobytes())
    for byte in (b"\x7f", b"\xff"):
        file.write_bytes(data[:at] + byte * tokens.nbytes + data[at + tokens.nbytes :])
        place = open_runs([copy]).hookpoint("run", HOOKPOINTS[0])  # too large to be read for that
        with pytest.raises(ArtifactError, match="corpus: tokens 0 to 9 are damaged"):
            place.texts([(0, 3), (5, 9)])


def test_what_is_made_again_while_it_is_served_is_not_mixed_with_what_was_there(copy: Path) -> None:
    served = open_runs([copy])
    for name in ("catalogue", "labels"):
        served.hookpoint("run", HOOKPOINTS[0])
        folder = copy / HOOKPOINTS[0] / name
        folder.rename(copy / "old")
        for stands_there in (False, True):
            if stands_there:
                shutil.copytree(copy / "old", folder)
            with pytest.raises(Refusal, match="made again, or are gone"):
                served.hookpoint("run", HOOKPOINTS[0])
        served.hookpoint("run", HOOKPOINTS[1])
        shutil.rmtree(folder)
        (copy / "old").rename(folder)


def test_a_catalogue_of_another_dictionary_is_refused(copy: Path) -> None:
    folder = copy / HOOKPOINTS[0]
    digest = artifact.read_manifest(folder / "dictionary").digest
    remake(folder / "catalogue", "catalogue", dictionary=digest)
    open_runs([copy])
    remake(folder / "catalogue", "catalogue", dictionary="0" * 32)
    with pytest.raises(ArtifactError, match="catalogue: made from another dictionary"):
        open_runs([copy])


def test_labels_of_another_catalogue_are_refused_and_none_are_needed(copy: Path) -> None:
    folder = copy / HOOKPOINTS[0] / "labels"
    remake(folder, "labels", catalogue="0" * 32)
    with pytest.raises(ArtifactError, match="labels: made from another catalogue"):
        open_runs([copy])
    shutil.rmtree(folder)
    place = open_runs([copy]).hookpoint("run", HOOKPOINTS[0])
    assert place.label(3).text == "(no label yet)"
    assert place.columns.texts[3] == "(no label yet)"


def test_the_corpus_may_be_that_of_another_run_that_is_served(copy: Path, tmp_path: Path) -> None:
    """As `rows_of` makes it: the other run was learned from this one's rows."""
    other = shutil.copytree(copy, tmp_path / "other")
    digest = artifact.read_manifest(copy / "corpus").digest
    for hookpoint in HOOKPOINTS:
        shutil.rmtree(other / hookpoint / "labels")
        remake(other / hookpoint / "catalogue", "catalogue", corpus=digest)
    shutil.rmtree(other / "corpus")
    served = open_runs([copy, other])
    assert served.hookpoint("other", HOOKPOINTS[0]).corpus.path == copy / "corpus"
    with pytest.raises(ArtifactError, match="serve the run that holds it too"):
        open_runs([other])


def test_a_run_made_again_has_other_tags(copy: Path) -> None:
    before = open_runs([copy]).run("run").etag
    assert open_runs([copy]).run("run").etag == before
    shutil.rmtree(copy / "steering")
    with finished(copy / "steering", "steering") as out:
        (out / "steering.json").write_text("{}")
    assert open_runs([copy]).run("run").etag != before
