"""The whole job on the built-in model, small: made once, skipped afterwards, the same bytes every time, changes noticed."""

import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.conftest import exit_status

from mohole import artifact
from mohole.act import Clamp, open_variant, read_dose, read_steering
from mohole.catalogue import Catalogue
from mohole.config import Recipe, parse
from mohole.errors import ArtifactError, DamageError, StageError
from mohole.evaluate import read_evaluation
from mohole.job import plan, run, run_verb
from mohole.job.stage import Verb
from mohole.model import load_model
from mohole.planted import weights_path
from mohole.record import read_json, read_record
from mohole.store import Store
from mohole.store.seal import mend
from mohole.store.verify import verify


def small(folder: Path, **tables: object) -> Recipe:
    return parse(
        {
            "run": str(folder),
            "machine": {"processes": 1, "threads": 1},  # each of several would import torch and all for 5 seconds
            "corpus": {"kind": "planted", "n_documents": 400},
            "harvest": {"hookpoints": ["resid_post.0", "blocks.1.hook_resid_post"]},
            "train": {"n_latents": 128, "steps": 60, "batch_rows": 512, "nonlinearity": {"kind": "topk", "k": 8}},
            "evaluate": {"max_documents": 20, "task_prompts": 10, "min_positives": 40},
            "steer": {"clamp": {"hookpoint": "resid_post.1", "latent": 3}, "max_new_tokens": 8},
            **tables,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its two dictionaries are made side by side; what tests make of it, in this process."""
    folder = tmp_path_factory.mktemp("job") / "run"
    made = run(small(folder, machine={"processes": 2, "threads": 1}))
    assert len(made) == 2 + 2 * 4 + 1
    return folder


@pytest.fixture
def few_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where steering looks for its latent: one that is tried goes on with all the prompts, which takes a second."""
    for number in ("_LABELLED", "_CANDIDATES"):
        monkeypatch.setattr(f"mohole.job.steering.{number}", 3)


def digests(recipe: Recipe) -> dict[str, str]:
    return {stage.name: artifact.open_artifact(stage.out).digest for stage in plan(recipe).stages}


def test_a_second_run_does_nothing(finished: Path) -> None:
    before = digests(small(finished))
    assert run(small(finished)) == []
    assert digests(small(finished)) == before


def test_the_same_recipe_gives_the_same_bytes_with_one_process_or_two(finished: Path, tmp_path: Path) -> None:
    again = small(tmp_path / "run")
    run(again)
    assert digests(again) == digests(small(finished))


def test_a_changed_setting_is_refused_and_named_and_replace_makes_it_and_all_that_follows(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    changed = small(folder, label={"min_firings": 5})
    with pytest.raises(StageError, match=r"min_firings: 8 there, 5 asked for.*--replace"):
        run(changed)
    assert run(changed, replace=True) == ["label resid_post.0", "label resid_post.1", "steer"]
    assert run(changed) == []


def test_a_missing_stage_alone_is_made(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = digests(small(folder))
    shutil.rmtree(folder / "resid_post.1" / "labels")
    assert run(small(folder)) == ["label resid_post.1"]
    assert digests(small(folder)) == before


def test_a_stage_without_its_parents_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"activations: no artifact there; `mohole harvest RECIPE` makes it"):
        run_verb(small(tmp_path / "run"), "train")


def test_rows_of_a_planted_job_are_those_of_the_model(finished: Path) -> None:
    """A row read back is the activation of its token in its own document, run alone, but for the digits of bfloat16."""
    import numpy as np
    import torch

    from mohole.corpus import Corpus

    corpus, store, model = Corpus.open(finished / "corpus"), Store.open(finished / "activations"), load_model("planted")
    for token in store.tokens[np.linspace(0, store.n_rows - 1, 25).astype(int)].tolist():
        document = int(corpus.document_of(np.asarray([token]))[0])
        window = int(np.searchsorted(corpus.windows.start, token, side="right")) - 1
        start = int(corpus.windows.start[window])
        assert start >= corpus.document_starts[document]
        tokens = torch.from_numpy(corpus.window_tokens(np.asarray([window]), model.bos_id))
        own = model.read(tokens, ["resid_post.1"])["resid_post.1"][0, token - start + 1]
        row = torch.from_numpy(store.take("resid_post.1", np.array([token])))[0]
        torch.testing.assert_close(row, own, rtol=2**-8, atol=1e-4)


def test_a_changed_text_is_another_corpus(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"The fox lives in the forest. It eats {i} berries." for i in range(60)), encoding="utf-8"
    )
    recipe = small(tmp_path / "run", corpus={"kind": "text", "path": str(text)}, windows={"held_out": 0.3})
    assert run_verb(recipe, "harvest") == ["corpus", "harvest"]
    assert run_verb(recipe, "harvest") == []
    text.write_text(text.read_text(encoding="utf-8").replace("7 berries", "8 berries"), encoding="utf-8")
    with pytest.raises(StageError, match=r"corpus: made with other settings \(parents\.text"):
        run_verb(recipe, "harvest")


@pytest.mark.parametrize(
    ("clamp", "tried"),
    [
        ({"hookpoint": "resid_post.1", "concept": "landmark/golden_gate_bridge"}, "most active at landmark/golden"),
        (None, "best labelled"),
    ],
)
def test_a_latent_that_the_recipe_leaves_open_is_chosen_on_prompts_that_are_not_shown(
    finished: Path, tmp_path: Path, few_tried: None, clamp: dict[str, str] | None, tried: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    steer = {"max_new_tokens": 4} | ({"clamp": clamp} if clamp else {})
    run_verb(small(folder, steer=steer | {"variant": "shown"}), "steer", replace=True)
    shown = read_steering(folder / "steering")
    kept = open_variant(folder, "shown").interventions
    assert kept == (Clamp(shown.latent, times_max=shown.times_max, hookpoint=shown.hookpoint),)
    assert tried in shown.chosen_by
    assert "of 3 latents" in shown.chosen_by
    assert "of 8 other prompts" in shown.chosen_by
    assert len(shown.generations) == 4
    assert shown.times_max == 1.0


def test_the_python_of_the_readme_runs_and_no_latent_exceeds_its_maximum(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(finished)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    strengths = [re.findall(r"(\d+\.\d\d) of (\d+\.\d\d)$", line) for line in printed]
    found = [(float(value), float(most)) for ((value, most),) in filter(None, strengths)]
    assert len(found) >= 6
    assert all(value <= 1.5 * most for value, most in found)


def test_the_same_text_elsewhere_is_the_same_corpus(tmp_path: Path) -> None:
    words = "\n\n".join(f"the river number {i} runs past the old mill and the bridge " * 8 for i in range(40))
    digests = []
    for place in ("here", "there"):
        text = tmp_path / place / "own.txt"
        text.parent.mkdir()
        text.write_text(words)
        recipe = small(tmp_path / place / "run", corpus={"kind": "text", "path": str(text)}, windows={"held_out": 0.3})
        run_verb(recipe, "corpus")
        digests.append(artifact.open_artifact(Path(recipe.run) / "corpus").digest)
    assert digests[0] == digests[1]


def test_a_deleted_parent_is_made_again_and_what_came_from_it_is_still_right(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = digests(small(folder))
    shutil.rmtree(folder / "activations")
    assert run(small(folder)) == ["harvest"]
    assert digests(small(folder)) == before
    shutil.rmtree(folder / "resid_post.1" / "dictionary")
    assert run(small(folder)) == ["train resid_post.1"]
    assert digests(small(folder)) == before


def test_a_truncated_artifact_is_not_taken_for_finished(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shard = min((folder / "activations" / "shards").rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=rf"activations/.*/{shard.name}: \d+ bytes, \d+ expected"):
        run(small(folder))


def test_a_flipped_byte_is_found_before_a_run_is_called_undamaged(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    plan(small(folder)).verify()
    labels = folder / "resid_post.1" / "labels" / "labels.jsonl"
    data = bytearray(labels.read_bytes())
    data[100] ^= 1
    labels.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"labels.jsonl: checksum is wrong"):
        plan(small(folder)).verify()


def test_a_flipped_byte_of_a_shard_is_found_and_what_is_mended_is_made_again_byte_for_byte(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = digests(small(folder))
    shard = max((folder / "activations" / "shards").rglob("*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    with pytest.raises(DamageError, match=rf"activations/.*/{shard.name}"):
        plan(small(folder)).verify()
    store = Store.open(folder / "activations")
    mend(store, verify(store).damaged)
    assert run(small(folder)) == ["harvest"]
    assert shard.read_bytes() == whole
    assert digests(small(folder)) == before


def test_a_stored_shuffle_changes_no_dictionary(finished: Path, tmp_path: Path) -> None:
    """The loader's order is the stored order, whatever the plan."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    stored = small(folder, shuffle={"stored": True, "levels": 1})
    assert run_verb(stored, "shuffle") == ["shuffle"]
    assert run_verb(stored, "train", replace=True) == ["train resid_post.0", "train resid_post.1"]
    assert verify(Store.open(folder / "shuffled")).holds
    for hookpoint in ("resid_post.0", "resid_post.1"):
        for file in (finished / hookpoint / "dictionary").glob("[!m]*"):
            assert (folder / hookpoint / "dictionary" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("verb", ["evaluate", "catalogue", "steer"])
def test_a_stage_refuses_another_model_than_the_one_whose_activations_it_works_on(
    finished: Path, tmp_path: Path, verb: Verb
) -> None:
    """Same shape, other weights: nothing else would notice."""
    folder, model = tmp_path / "run", tmp_path / "other"
    shutil.copytree(finished, folder)
    shutil.copytree(weights_path(), model)
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.5
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"model.path: .*other is another model than that of .*corpus"):
        run_verb(small(folder, model={"path": str(model)}), verb, replace=True)


def test_a_text_without_one_good_label_still_gets_its_steering(finished: Path, tmp_path: Path, few_tried: None) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    unnamed = small(folder, label={"min_firings": 1_000_000}, steer={"max_new_tokens": 3})
    run(unnamed, replace=True)
    assert read_steering(folder / "steering").latent >= 0


def test_a_training_follows_what_the_model_loses_and_asks_no_model_where_it_does_not(finished: Path) -> None:
    folder = finished / "resid_post.1"
    *_, last = read_record(folder / "dictionary" / "record.jsonl")
    stamp = read_json(folder / "dictionary" / "in_model.json")
    measures = read_evaluation(folder / "evaluation").measures
    assert (stamp["hookpoint"], stamp["replaced"]) == ("resid_post.1", measures["ce_recovered"].masks.replaced)
    assert 500 < stamp["n_pairs"] < 1024  # 1024 tokens in whole windows; evaluate's 20 documents are the first of them
    for name in ("ce_recovered", "ce_recovered_zero", "excess_ce"):
        assert stamp["measures"][name]["definition"] == measures[name].definition
        assert last[name] == pytest.approx(measures[name].value, rel=0.25)
    asks, alone = (
        next(stage for stage in plan(recipe).stages if stage.verb == "train")
        for recipe in (small(finished), small(finished, train={"evaluate_every": 0}))
    )
    assert (asks.needs_model, set(asks.parents)) == (True, {"rows", "corpus"})
    assert (alone.needs_model, set(alone.parents)) == (False, {"rows"})


def test_a_sweep_of_strengths_is_an_artifact_and_warns_outside_its_range(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line: a latent that is active, a variant of it, the same again, and the chat that is warned."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    model = load_model("planted", self_test=False)
    monkeypatch.setattr("mohole.search.run.SearchedRun.load_model", lambda *given, **options: model)
    monkeypatch.setattr("mohole.job.doses._TASK_PROMPTS", 2)
    monkeypatch.setattr("mohole.job.prompts._TEXTS", 4)
    catalogue = Catalogue.open(folder / "resid_post.1" / "catalogue")
    latent = int(catalogue.density.argmax())
    of = f"resid_post.1:{latent}"
    few = (
        "--strengths",
        "1,40",
        "--prompt",
        "User: What are you?\nAssistant:",
        "--max-tokens",
        "6",
        "--max-lost",
        "0.9",
    )

    def mohole(*arguments: object) -> tuple[str, str]:
        assert exit_status(monkeypatch, *arguments) == 0
        return capsys.readouterr()

    swept = mohole("steer", folder, "sweep", of, *few)
    place = folder / "doses" / f"resid_post.1-{latent}"
    dose = read_dose(place)
    assert [point.strength for point in dose.points] == [1.0, 40.0]
    assert dose.unsteered.measures["kl"].value == 0.0
    assert dose.unsteered.measures["tasks"].value == 1.0
    assert dose.points[1].measures["tasks"].value < 0.5 < dose.points[1].measures["kl"].value
    assert dose.words  # of the tokens at which it has half of its activation
    assert {file.name for file in place.iterdir()} == {"dose.json", "dose.html", "usable.json", "manifest.json"}
    again = mohole("steer", folder, "sweep", of, *few)
    assert "there already" in again[1]
    assert again[0] == swept[0]
    assert exit_status(monkeypatch, "steer", folder, "sweep", of, *few, "--seed", "1") == 1  # another one is there
    capsys.readouterr()

    warned = mohole("chat", folder, "--clamp", f"{of}=40x", "--prompt", "w", "--max-tokens", "2")[1]
    assert f"warning: latent {latent} at resid_post.1:" in warned
    assert "warning" in mohole("steer", folder, "save", "much", "--clamp", f"{of}=40x")[1]
    assert "the range is kept with the variant much" in mohole("steer", folder, "sweep", "much", *few)[1]
    assert "; usable" in mohole("steer", folder, "list")[0]
    assert (
        "warning: variant much: "
        in mohole("chat", folder, "--variant", "much", "--prompt", "w", "--max-tokens", "2")[1]
    )
    assert "Dose and response: variant much" in mohole("show", folder / "doses" / "variant-much")[0]
