"""What cannot be meant is refused before anything runs: two drivers on one store, rows of another job, places of no use."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.faults.conftest import MEMORY, Mohole, files, write_source
from tests.faults.drivers import Drivers
from tests.faults.tiny import recipe

from mohole import artifact
from mohole.config import Machine, Recipe
from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.job import run_verb
from mohole.job.rows import shuffle_store
from mohole.job.sweep import run_sweep
from mohole.storage import lease, open_storage
from mohole.store import Documents, Store, write_store
from mohole.store.listing import FACTS_FILE, Layout, write_facts, write_layout
from mohole.store.seal import seal
from mohole.store.verify import verify
from mohole.train.trainer import Trainer

NOBODY = 65534
HERE = Machine(executor="inline")


def test_a_second_driver_says_so_and_changes_nothing(
    source: Store, shuffles: Drivers, tmp_path: Path, mohole: Mohole
) -> None:
    out = tmp_path / "out"
    first = shuffles.start(source=source.url, out=str(out), memory=MEMORY, levels=2)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".out.partial/tasks/*/*/*.json")):
        assert first.is_alive()
        assert time.monotonic() < end
    os.kill(first.pid, signal.SIGSTOP)
    try:
        before = files(tmp_path)
        status, said = mohole("shuffle", source.url, out, "--levels", 2)
        assert (status, said) == (
            1,
            f"error: {out}: another process is making it; wait for that one, or name another folder",
        )
        assert files(tmp_path) == before
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.join() == (0, "")
    assert verify(Store.open(out)).holds


@pytest.mark.parametrize("scheme", ["file", "s3"])
def test_a_second_driver_behind_a_url_says_so_and_changes_nothing(
    source: Store, tmp_path: Path, request: pytest.FixtureRequest, scheme: str
) -> None:
    if scheme == "s3":
        request.getfixturevalue("s3_server")
    out = f"file://{tmp_path}/out" if scheme == "file" else "s3://mohole-tests/faults/held"
    place = open_storage(out)
    with lease(place, beat_seconds=0.1):
        with pytest.raises(
            ArtifactError, match=rf"out|held: another process \(pid {os.getpid()} on .*wait for that one"
        ):
            shuffle_store(source, out, HERE)
        assert place.names() == []
    shuffle_store(source, out, HERE)
    assert verify(Store.open(out)).holds


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("harvested") / "run"
    run_verb(recipe(run), "harvest", say=lambda _: None)
    return run


@pytest.fixture
def run(harvested: Path, tmp_path: Path) -> Path:
    shutil.copytree(harvested, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"seed": 1}, r"seed: 0 there, 1 asked for"),
        ({"shuffle": {"epoch": 2}}, r"shuffle\.epoch: 0 there, 2 asked for"),
        ({"harvest": {"dtype": "float32"}}, r"harvest\.dtype of resid_post\.0: 'bfloat16' there, 'float32' asked for"),
    ],
)
def test_training_on_rows_of_another_recipe_is_refused(run: Path, changes: dict[str, Any], what: str) -> None:
    before = files(run)
    with pytest.raises(StageError, match=rf"activations: holds other rows than the recipe's \({what}\)"):
        run_verb(recipe(run, **changes), "train")
    assert files(run).items() >= before.items()
    assert not (run / "resid_post.0" / "dictionary").exists()


def test_a_catalogue_of_another_version_of_the_dictionary_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished one, and one that a kill left half made."""

    def train(steps: int) -> Recipe:
        version = recipe(run, train={"steps": steps})
        run_verb(version, "train", replace=True, say=lambda _: None)
        return version

    run_verb(train(5), "catalogue", say=lambda _: None)
    out = run / "resid_post.0" / "catalogue"
    before = files(out)
    another = train(6)
    with pytest.raises(StageError, match=r"catalogue: made with other settings \(parents\.dictionary: "):
        run_verb(another, "catalogue")
    assert files(out) == before
    shutil.rmtree(out)
    with monkeypatch.context() as patch:
        patch.delattr("mohole.catalogue.builder._finish")
        with pytest.raises(NameError):
            run_verb(another, "catalogue", say=lambda _: None)
    before = files(out.parent / ".catalogue.partial")
    assert any(name.startswith("features/") for name in before)
    with pytest.raises(
        ArtifactError, match=r"\.catalogue\.partial: begun with other settings .*\(parents\.dictionary: "
    ):
        run_verb(train(7), "catalogue")
    assert files(out.parent / ".catalogue.partial") == before


class PowerError(Exception):
    """It is gone."""


@pytest.fixture
def steps_left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps trainings may still make, all together, before the power goes."""
    left, step = [10**6], Trainer.step

    def counted(self: Trainer, *rows: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise PowerError
        return step(self, *rows)

    monkeypatch.setattr(Trainer, "step", counted)
    return left


TINY: dict[str, Any] = {"steps": 9, "checkpoint_every": 2, "log_every": 1}


@pytest.mark.parametrize(
    ("key", "value", "there"),
    [("device", "cuda:99", "cpu"), ("n_latents", 2**31, 32), ("steps", 10, 9), ("log_every", 8, 1)],
)
def test_a_killed_training_is_not_lost_by_a_command_with_other_settings(
    run: Path, steps_left: list[int], key: str, value: object, there: object
) -> None:
    undisturbed = run.parent / "undisturbed"
    shutil.copytree(run, undisturbed)
    run_verb(recipe(undisturbed, train=TINY), "train")
    steps_left[0] = 7
    with pytest.raises(PowerError):
        run_verb(recipe(run, train=TINY), "train")
    before = files(run / "resid_post.0")
    assert any("checkpoints/0000000006.json" in name for name in before)
    message = (
        rf"\.dictionary\.partial: begun with other settings .*\(train\.{key}: {there!r} there, {value!r} asked for\)"
    )
    with pytest.raises(ArtifactError, match=message):
        run_verb(recipe(run, train=TINY | {key: value}), "train")
    assert files(run / "resid_post.0") == before
    steps_left[0] = 3
    run_verb(recipe(run, train=TINY), "train")
    assert bytes_of(run / "resid_post.0" / "dictionary") == bytes_of(undisturbed / "resid_post.0" / "dictionary")


def test_a_training_killed_before_its_first_checkpoint_is_in_nobodys_way_and_others_go_with_replace(
    run: Path, steps_left: list[int]
) -> None:
    for steps_before, settings, replacing in (
        (1, TINY, False),
        (5, TINY | {"lr": 1e-3}, False),
        (9, TINY | {"lr": 2e-3}, True),
    ):
        steps_left[0] = steps_before
        with pytest.raises(PowerError) if steps_before < 9 else nullcontext():
            run_verb(recipe(run, train=settings), "train", replace=replacing)
    assert artifact.read_manifest(run / "resid_post.0" / "dictionary").inputs.config["train"]["lr"] == 2e-3


def test_a_killed_sweep_is_not_lost_by_a_command_with_other_settings(run: Path, steps_left: list[int]) -> None:
    steps_left[0] = 11
    with pytest.raises(PowerError):
        run_sweep(recipe(run, train=TINY, sweep={"k": [2, 4]}))
    before = files(run / "sweep")
    assert any("checkpoints" in name for name in before)
    for changes in ({"k": [2, 4], "n_latents": [2**31]}, {"k": [2]}):
        with pytest.raises(ArtifactError, match=r"\.resid_post\.0\.partial: begun with other settings .*members\."):
            run_sweep(recipe(run, train=TINY, sweep=changes))
        assert files(run / "sweep") == before
    steps_left[0] = 10**6
    run_sweep(recipe(run, train=TINY, sweep={"k": [2]}), replace=True)
    assert list(artifact.read_manifest(run / "sweep" / "resid_post.0").inputs.config["members"]) == ["k2"]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("what", ["corpus", "model"])
def test_rows_of_another_corpus_or_model_are_refused(run: Path, what: str) -> None:
    store = Store.open(run / "activations")
    write_facts(store.storage, replace(store.facts, source=dict(store.facts.source) | {what: "another"}))
    seal(store.storage, store.manifest.inputs)
    with pytest.raises(StageError, match=rf"holds other rows than the recipe's \(the {what}: 'another' there"):
        run_verb(recipe(run), "train")


def test_rows_of_mixed_types_are_refused(run: Path) -> None:
    store = Store.open(run / "activations")
    formats = {"mlp_out.0": replace(store.facts.formats["resid_post.0"], dtype="float16")} | dict(store.facts.formats)
    marks = {"mlp_out.0": store.facts.fingerprints["resid_post.0"]} | dict(store.facts.fingerprints)
    write_facts(store.storage, replace(store.facts, formats=formats, fingerprints=marks))
    write_layout(store.storage, Layout(dict.fromkeys(formats, store.layout.shards["resid_post.0"])))
    seal(store.storage, store.manifest.inputs)
    with pytest.raises(StageError, match=r"harvest\.dtype of mlp_out\.0: 'float16' there, 'bfloat16' asked for"):
        run_verb(recipe(run), "train")


def test_rows_in_the_order_of_the_text_are_not_trained_on(run: Path) -> None:
    shuffle_store(Store.open(run / "activations"), str(run / "by_text"), HERE, order_kind="text")
    shutil.rmtree(run / "activations")
    (run / "by_text").rename(run / "activations")
    with pytest.raises(StageError, match=r"activations: holds other rows than the recipe's \(order: 'text' there"):
        run_verb(recipe(run), "train")


@pytest.mark.parametrize("name", ["{0}", "{0}/", "file://{0}", "{1}/link", "{1}/activations/../activations"])
def test_a_store_is_not_shuffled_onto_itself(run: Path, name: str) -> None:
    (run / "link").symlink_to(run / "activations")
    before = files(run)
    for replacing in (False, True):
        with pytest.raises(ArtifactError, match=r"is the store to be shuffled; name another place"):
            shuffle_store(
                Store.open(run / "activations"), name.format(run / "activations", run), HERE, replace=replacing
            )
    assert files(run) == before


def test_a_place_that_holds_rows_of_another_job_is_refused_and_left_alone(harvested: Path, tmp_path: Path) -> None:
    place = {"place": str(tmp_path / "rows")}
    run_verb(recipe(tmp_path / "one", harvest=place), "harvest", say=lambda _: None)
    before = files(tmp_path / "rows")
    with pytest.raises(ArtifactError, match=r"rows: holds rows of another job \(other settings, model, text or seed\)"):
        run_verb(recipe(tmp_path / "two", harvest=place, seed=1), "harvest", say=lambda _: None)
    assert {name: file for name, file in files(tmp_path / "rows").items() if name != ".driver.lock"} == {
        name: file for name, file in before.items() if name != ".driver.lock"
    }
    with pytest.raises(ArtifactError, match=r"rows: holds rows of another job"):
        shuffle_store(Store.open(harvested / "activations"), f"file://{tmp_path}/rows", HERE)
    assert verify(Store.open(tmp_path / "rows")).holds


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder of one's own, with a folder `forbidden` in it; and we are nobody, because root may do everything."""
    folder = Path(tempfile.mkdtemp(prefix="mohole-"))
    folder.chmod(0o777)
    (folder / "forbidden").mkdir(mode=0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    yield folder
    if is_root:
        os.seteuid(0)
    shutil.rmtree(folder)


def test_a_folder_without_permission_is_refused_first(nobody: Path, mohole: Mohole) -> None:
    place = nobody / "forbidden" / "rows"
    with pytest.raises(ArtifactError, match=r"forbidden.*: permission denied"):
        run_verb(recipe(nobody / "run", harvest={"place": str(place)}), "harvest")
    assert not (nobody / "run").exists()
    write_source(nobody / "activations")
    for out in (place, f"file://{place}"):
        status, said = mohole("shuffle", nobody / "activations", out)
        assert status == 1
        assert said.startswith(f"error: {nobody}/forbidden")
        assert "permission" in said


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("nowhere://x/y", r"nowhere://x/y: no storage of kind 'nowhere'"),
        ("s3://", r"s3://: names no bucket"),
        ("s3://mohole-no-such-bucket/rows", r"s3://mohole-no-such-bucket/rows.*: no such bucket"),
        ("file://elsewhere/rows", r"names the machine 'elsewhere'"),
    ],
)
def test_a_place_of_no_use_is_refused_before_anything_runs(
    source: Store, tmp_path: Path, s3_server: str, place: str, what: str
) -> None:
    with pytest.raises((ArtifactError, ConfigError, StageError), match=what):
        run_verb(recipe(tmp_path / "run", harvest={"place": place}), "harvest")
    assert not (tmp_path / "run").exists()
    with pytest.raises((ArtifactError, ConfigError, StageError), match=what):
        shuffle_store(source, place, HERE)
    with pytest.raises((ArtifactError, ConfigError, StageError), match=r"://"):
        Store.open(place)


def test_an_s3_that_does_not_answer_is_named(source: Store, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(StageError, match=r"s3://mohole-tests/x.*: cannot be used .*check network, endpoint"):
            shuffle_store(source, "s3://mohole-tests/x", HERE)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_artifacts_of_another_kind_are_no_stores(run: Path) -> None:
    with pytest.raises(ArtifactError, match="corpus: holds 'corpus', not activations"):
        Store.open(run / "corpus")
    assert artifact.read_manifest(run / "activations").files.keys() >= {FACTS_FILE}


def test_too_little_memory_is_refused_with_the_least_that_will_do(source: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory: .* is too little; the smallest is"):
        shuffle_store(source, str(tmp_path / "out"), Machine(executor="inline", memory="20MiB", processes=1))


def test_statistics_say_yes_to_a_shuffle_and_refuse_what_they_cannot_judge(
    source: Store, tmp_path: Path, mohole: Mohole
) -> None:
    assert mohole("shuffle", source.url, tmp_path / "random")[0] == 0
    status, said = mohole("verify", tmp_path / "random", "--statistics")
    assert status == 0, said
    assert mohole("shuffle", source.url, tmp_path / "text", "--order", "text")[0] == 0
    status, said = mohole("verify", tmp_path / "text", "--statistics")
    assert status == 1
    assert "in the order of the text" in said
    documents = Documents(np.array([0, 700]), np.array([False]))
    write_store(tmp_path / "few", {"embed": np.ones((700, 2), np.float32)}, documents)
    status, said = mohole("verify", tmp_path / "few", "--statistics")
    assert status == 1
    assert "700 rows to train on; --statistics judges an order of 1024 and more" in said


def test_another_kind_of_artifact_is_never_replaced(run: Path, mohole: Mohole) -> None:
    before = files(run / "corpus")
    status, said = mohole("shuffle", run / "activations", run / "corpus", "--replace")
    assert status == 1
    assert "holds 'corpus'" in said
    assert files(run / "corpus") == before


def test_a_finished_shuffle_is_not_made_again_and_another_one_is_told_apart(run: Path, mohole: Mohole) -> None:
    assert mohole("shuffle", run / "activations")[0] == 0
    before = files(run / "sorted")
    status, said = mohole("shuffle", run / "activations")
    assert (status, "nothing to do" in said) == (0, True)
    status, said = mohole("shuffle", run / "activations", "--order", "text")
    assert status == 1
    assert "--replace makes it again" in said
    assert files(run / "sorted") == before


def test_what_show_says_of_a_store_it_has_looked_at(run: Path, mohole: Mohole) -> None:
    status, said = mohole("show", run / "activations")
    assert status == 0
    assert "mohole verify reads the shards too" in " ".join(said.split())
    next((run / "activations" / "shards").rglob("*.safetensors")).unlink()
    status, said = mohole("show", run / "activations")
    assert (status, "missing" in said) == (1, True)


def test_a_size_that_is_none_is_one_line(source: Store, tmp_path: Path, mohole: Mohole) -> None:
    status, said = mohole("shuffle", source.url, tmp_path / "x", "--memory", "100KB")
    assert status == 1
    assert said.removeprefix("error: ") == "'100KB': not a size; write such as 512MiB or 2GB"
