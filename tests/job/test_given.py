"""Dictionaries that are there already, in the place of trained ones; and the rows of another run."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mohole import load_dictionary
from mohole.cli.app import app
from mohole.config import Recipe, TopK, parse
from mohole.dictionary.formats.export import export_dictionary
from mohole.errors import ConfigError, StageError
from mohole.evaluate import read_evaluation
from mohole.job import plan, run, run_until, run_verb
from mohole.metrics import children_by_cosine
from mohole.planted import weights_path
from mohole.record import read_json
from mohole.report.comparison import comparison_text, write_comparison
from mohole.report.evaluated import Difference, difference, find_evaluations


def recipe(folder: Path, **tables: object) -> Recipe:
    return parse(
        {
            "run": str(folder),
            "machine": {"processes": 1, "threads": 1},
            "corpus": {"kind": "planted", "n_documents": 120},
            "harvest": {"hookpoints": ["resid_post.0"]},
            "train": {"n_latents": 64, "steps": 12, "batch_rows": 256, "nonlinearity": {"kind": "topk", "k": 4}},
            "evaluate": {"max_documents": 10, "recovery": False, "task_prompts": 4},
            **tables,
        }
    )


def given(folder: Path, trained: Path, path: Path, **tables: object) -> Recipe:
    places = [{"path": str(path), "hookpoint": "blocks.0.hook_resid_post"}]
    return recipe(folder, rows_of=str(trained), dictionary=places, harvest={}, **tables)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "run"
    for verb in ("harvest", "train", "evaluate"):
        run_verb(recipe(folder), verb)  # type: ignore[arg-type]
    return folder


def test_another_library_s_files_measure_as_the_dictionary_did_where_it_was_trained(
    trained: Path, tmp_path: Path
) -> None:
    export_dictionary(load_dictionary(trained / "resid_post.0" / "dictionary"), tmp_path / "theirs", "saelens")
    asked = given(tmp_path / "run", trained, tmp_path / "theirs")
    assert [stage.name for stage in plan(asked).stages][:2] == ["convert resid_post.0", "evaluate resid_post.0"]
    run_verb(asked, "convert")
    run_verb(asked, "evaluate")
    ours = read_evaluation(trained / "resid_post.0" / "evaluation").measures
    theirs = read_evaluation(tmp_path / "run" / "resid_post.0" / "evaluation").measures
    assert theirs.keys() == ours.keys()
    for name, each in theirs.items():
        assert each.value == (None if ours[name].value is None else pytest.approx(ours[name].value, rel=1e-4, abs=1e-6))
    assert not (tmp_path / "run" / "activations").exists()


def test_it_says_where_it_came_from_and_other_bytes_are_another_dictionary(trained: Path, tmp_path: Path) -> None:
    export_dictionary(load_dictionary(trained / "resid_post.0" / "dictionary"), tmp_path / "theirs", "sparsify")
    asked = given(tmp_path / "run", trained, tmp_path / "theirs")
    run_verb(asked, "convert")
    facts = read_json(tmp_path / "run" / "resid_post.0" / "dictionary" / "dictionary.json")
    assert facts["training"]["imported"]["format"] == "sparsify"
    assert facts["training"]["model"] == "planted"
    own = read_json(trained / "resid_post.0" / "dictionary" / "dictionary.json")
    assert own["training"]["model"] == "planted"
    (tmp_path / "theirs" / "note.txt").write_text("changed")
    with pytest.raises(StageError, match=r"parents\.source"):
        run_verb(asked, "convert")


def test_the_whole_job_goes_on_from_it(trained: Path, tmp_path: Path) -> None:
    asked = given(tmp_path / "run", trained, trained / "resid_post.0" / "dictionary")
    assert run(asked)[0] == "convert resid_post.0"
    assert (tmp_path / "run" / "steering").is_dir()
    assert run(asked) == []


def test_one_that_normalises_each_row_goes_through_the_whole_job(trained: Path, tmp_path: Path) -> None:
    from mohole.dictionary import LayerNorm, NormalisedAutoencoder, SparseAutoencoder
    from mohole.dictionary.row_norm import normalise
    from mohole.store import Store

    store = Store.open(trained / "activations")
    rows = torch.from_numpy(store.take("resid_post.0", store.tokens[:600]))
    own = normalise(rows, LayerNorm())[0]
    axes, centre = torch.linalg.svd(own - own.mean(0))[2][:32], own.mean(0)
    both = torch.cat([axes, -axes])
    sae = SparseAutoencoder("resid_post.0", TopK(k=8), both, torch.zeros(64), both, centre)
    export_dictionary(NormalisedAutoencoder(sae, LayerNorm()), tmp_path / "theirs", "saelens")
    settings = {"max_documents": 10, "task_prompts": 4, "causal_labels": 1, "min_positives": 5}
    asked = given(tmp_path / "run", trained, tmp_path / "theirs", evaluate=settings)
    assert run(asked)[0] == "convert resid_post.0"
    measures = read_evaluation(tmp_path / "run" / "resid_post.0" / "evaluation").measures
    assert 0 < measures["fvu"].value < 0.9
    assert measures["decoder_norm"].unit == "the row's own scale per unit of a latent"
    assert read_json(tmp_path / "run" / "steering" / "steering.json")["row_error"] < 1e-5
    suites = given(tmp_path / "more", trained, tmp_path / "theirs", evaluate=settings | {"suites": ["sparse_probing"]})
    run_until(suites, "evaluate")
    (probed,) = read_evaluation(tmp_path / "more" / "resid_post.0" / "evaluation").suites
    assert probed.suite == "sparse_probing"


def test_of_another_width_it_is_refused_by_name(trained: Path, tmp_path: Path) -> None:
    from mohole.dictionary import SparseAutoencoder

    weights = torch.eye(8, 5)
    wrong = SparseAutoencoder("resid_post.0", TopK(k=2), weights, torch.zeros(8), weights, torch.zeros(5))
    export_dictionary(wrong, tmp_path / "narrow", "mohole")
    with pytest.raises(
        StageError, match=r"narrow: has rows of 5 numbers at resid_post.0, where those of planted have \d+"
    ):
        run_verb(given(tmp_path / "run", trained, tmp_path / "narrow"), "convert")


def test_hookpoints_need_not_be_named_twice_and_may_not_differ(tmp_path: Path) -> None:
    tables = {"path": "somewhere", "hookpoint": "resid_post.1"}
    assert parse({"run": "r", "dictionary": [tables]}).harvest.hookpoints == ("resid_post.1",)
    with pytest.raises(ConfigError, match=r"harvest.hookpoints: resid_post.0, and the dictionaries .* resid_post.1"):
        recipe(tmp_path, dictionary=[tables])


def test_a_dictionary_of_another_library_is_evaluated_by_itself_and_compared(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = load_dictionary(trained / "resid_post.0" / "dictionary")
    export_dictionary(ours, tmp_path / "theirs", "saelens")
    export_dictionary(replace(ours, W_dec=3.0 * ours.W_dec), tmp_path / "louder", "mohole")
    options = [
        "--store",
        str(trained),
        "-o",
        "evaluate.max_documents=10",
        "-o",
        "evaluate.recovery=false",
        "-o",
        "evaluate.task_prompts=4",
    ]
    for name in ("theirs", "louder"):
        result = CliRunner().invoke(app, ["evaluate", name, *options, "--hookpoint", "resid_post.0"])
        assert result.exit_code == 0, result.output
        assert "fvu" in result.stdout
        assert (tmp_path / "evaluations" / name / "evaluation.html").is_file()
    paths = ["evaluations/theirs", "evaluations/louder", str(trained)]
    result = CliRunner().invoke(app, ["compare-dictionaries", *paths])
    assert result.exit_code == 0, result.output
    assert "fvu, difference" in result.stdout
    page = (tmp_path / "comparison.html").read_text()
    assert "Difference from " in page
    assert page.count("<svg") >= 4


def test_a_dictionary_differs_nothing_from_itself_and_clearly_from_a_spoilt_one(trained: Path, tmp_path: Path) -> None:
    ours = load_dictionary(trained / "resid_post.0" / "dictionary")
    export_dictionary(ours, tmp_path / "same", "mohole")
    export_dictionary(replace(ours, W_dec=3.0 * ours.W_dec), tmp_path / "louder", "mohole")
    for name in ("same", "louder"):
        run_until(given(tmp_path / name / "run", trained, tmp_path / name), "evaluate")
    first, same, louder = find_evaluations([trained, tmp_path / "same" / "run", tmp_path / "louder" / "run"])
    nothing = difference(first, same, "fvu")
    assert nothing == Difference(0.0, 0.0, 0.0)
    worse = difference(first, louder, "fvu")
    assert worse is not None
    assert 0 < worse.low <= worse.value <= worse.high
    own = louder.evaluation.measures["fvu"]
    assert worse.high - worse.low < own.high - own.low  # in pairs, what is hard in a document cancels
    unchanged = difference(first, louder, "l0")
    assert unchanged == Difference(0.0, 0.0, 0.0)


def test_of_other_documents_there_is_no_difference(trained: Path, tmp_path: Path) -> None:
    other = given(
        tmp_path / "run",
        trained,
        trained / "resid_post.0" / "dictionary",
        evaluate={"max_documents": 5, "task_prompts": 4},
    )
    run_until(other, "evaluate")
    first, second = find_evaluations([trained, tmp_path / "run"])
    assert difference(first, second, "ce_clean") is None
    console = Console(file=io.StringIO(), width=100)
    console.print(comparison_text([first, second]))
    said = " ".join(console.file.getvalue().split())
    assert "measured on other documents, seeds or settings" in said
    assert "evaluate.max_documents is 5, not 10" in said  # which setting, so that it can be given
    for each in (first, second):  # nor are the pairs of one said to be those of both
        assert f"{each.name}: " in said
        assert f"{each.evaluation.measures['ce_clean'].n:,} pairs of tokens" in said


def test_sizes_of_one_place_are_shown_growing_in_terminal_page_and_json(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the latents: each is kept in the whole, none has split, and a law needs four sizes."""
    monkeypatch.chdir(tmp_path)
    ours = load_dictionary(trained / "resid_post.0" / "dictionary")
    n = ours.n_latents // 2
    half = replace(ours, W_enc=ours.W_enc[:n], b_enc=ours.b_enc[:n], W_dec=ours.W_dec[:n])
    export_dictionary(half, tmp_path / "half", "mohole")
    run_until(given(tmp_path / "run", trained, tmp_path / "half"), "evaluate")
    result = CliRunner().invoke(app, ["compare-dictionaries", str(trained), "run", "--json", "all.json"])
    assert result.exit_code == 0, result.output
    assert "As latents grow" in result.stdout
    assert "four are needed" in " ".join(result.stdout.split())
    assert "Variance unexplained as latents grow" in Path("comparison.html").read_text()
    said = read_json(Path("all.json"))
    (growth,) = said["growth"]
    assert [size["n_latents"] for size in growth["sizes"]] == [n, 2 * n]
    (step,) = growth["steps"]
    assert step["cosine"]["forward"] == pytest.approx(1.0, abs=1e-5)
    nearby = children_by_cosine(half.W_dec, ours.W_dec)
    n_children = np.bincount(nearby[:, 0], minlength=n)
    assert (step["kept"], step["split"]) == ((n_children == 1).sum(), (n_children > 1).sum())
    assert growth["law"][0]["value"] is None
    fvus = [each["measures"]["fvu"]["value"] for each in said["dictionaries"]]
    (apart,) = said["differences"].values()
    assert apart["fvu"]["value"] == pytest.approx(fvus[1] - fvus[0])
    refused = CliRunner().invoke(app, ["compare-dictionaries", str(trained), "run", "--json", "all.txt"])
    assert "--json all.txt" in str(refused.exception)


def test_a_page_begins_with_what_is_wrong_and_with_what_the_terminal_shows(trained: Path, tmp_path: Path) -> None:
    found = find_evaluations([trained])
    assert found[0].evaluation.warnings
    write_comparison(tmp_path / "page.html", found)
    page = (tmp_path / "page.html").read_text()
    top, numbers = page.split("<h2>Every number")
    assert 0 < top.index("<h2>Warnings") < top.index("How often latents fire")
    places = [numbers.index(f">{name}</td>") for name in ("fvu", "l0", "kl", "dense", "ce_clean", "mse")]
    assert places == sorted(places)
    task = found[0].evaluation.tasks[0]
    assert f">{task.name}</td>" in numbers
    assert f"{task.clean:.3f}, {task.replaced:.3f} of {task.n}<" in numbers


def test_tasks_are_of_the_text_that_is_measured_on_not_of_the_default_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The built-in world's questions mean nothing to the reader of another text."""
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text("".join(f"The Golden Gate Bridge is {n}. It is red.\n\n" for n in range(60)))
    own = recipe(tmp_path / "own", corpus={"kind": "text", "path": "own.txt"}, windows={"held_out": 0.5})
    run_verb(own, "harvest")
    dictionary = str(trained / "resid_post.0" / "dictionary")
    settings = [
        item for name in ("max_documents=10", "recovery=false", "task_prompts=2") for item in ("-o", f"evaluate.{name}")
    ]
    for name, store in (("other", "own"), ("planted", str(trained))):
        result = CliRunner().invoke(app, ["evaluate", dictionary, "--store", store, "--out", name, *settings])
        assert result.exit_code == 0, result.output + str(result.exception)
    assert not read_evaluation(Path("other/resid_post.0/evaluation")).tasks
    assert read_evaluation(Path("planted/resid_post.0/evaluation")).tasks


def test_the_model_of_a_store_is_the_one_that_its_run_was_trained_on_unless_told(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    facts = tmp_path / "own" / "resid_post.0" / "dictionary" / "dictionary.json"
    facts.parent.mkdir(parents=True)
    facts.write_text(json.dumps({"training": {"model": "nobody/has-this"}}))
    for name in ("corpus", "activations"):
        (tmp_path / "own" / name).symlink_to(trained / name)
    asked = ["evaluate", str(trained / "resid_post.0" / "dictionary"), "--store", "own", "--out", "x"]
    for more, named in (([], "nobody/has-this"), (["--model", "nobody/told"], "nobody/told")):
        refused = CliRunner().invoke(app, [*asked, *more])
        assert named in str(refused.exception), "the run's model is not on this machine"


def test_a_store_of_another_model_is_refused_before_the_dictionary_is_said_to_be_of_it(
    trained: Path, tmp_path: Path
) -> None:
    """Of the right width; what is written first would say a wrong model for good."""
    shutil.copytree(weights_path(), tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.5
    save_file(weights, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    asked = given(
        tmp_path / "run", trained, trained / "resid_post.0" / "dictionary", model={"path": str(tmp_path / "other")}
    )
    with pytest.raises(StageError, match=r"model.path: .*other is another model than that of .*corpus"):
        run_until(asked, "evaluate")
    assert not (tmp_path / "run" / "resid_post.0" / "dictionary").exists()


KINDS: dict[str, dict[str, object]] = {
    "transcoder": {"reads": "mlp_in.0", "writes": "mlp_out.0", "skip": True},
    "crosscoder": {"hookpoints": ["mlp_out.0", "mlp_out.1"]},
    "cross_layer_transcoder": {"reads": ["mlp_in.0", "mlp_in.1"], "writes": ["mlp_out.0", "mlp_out.1"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_dictionaries_of_every_kind_are_evaluated_by_themselves(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wide = ["mlp_in.0", "mlp_out.0", "mlp_in.1", "mlp_out.1"]
    train = {
        "n_latents": 32,
        "steps": 4,
        "batch_rows": 256,
        "learns": {"kind": kind} | KINDS[kind],
        "nonlinearity": {"kind": "relu"},
    }
    asked = recipe(tmp_path / "own", harvest={"hookpoints": wide}, train=train)
    run_until(asked, "evaluate")
    options = [
        item for name in ("max_documents=10", "recovery=false", "task_prompts=4") for item in ("-o", f"evaluate.{name}")
    ]
    path = f"own/{kind}/dictionary"
    if kind != "crosscoder":  # which circuit-tracer has no files for
        export_dictionary(load_dictionary(path), tmp_path / "theirs", "circuit-tracer")
        path = "theirs"
    result = CliRunner().invoke(app, ["evaluate", path, "--store", "own", "--out", "alone", *options])
    assert result.exit_code == 0, result.output
    ours = read_evaluation(Path("own") / kind / "evaluation")
    alone = read_evaluation(Path("alone") / kind / "evaluation")
    assert (alone.kind, alone.reads, alone.writes) == (ours.kind, ours.reads, ours.writes)
    for name, each in ours.measures.items():
        assert alone.measures[name].value == (each.value and pytest.approx(each.value, rel=1e-4, abs=1e-6)), name
    suites = recipe(tmp_path / "own", harvest={"hookpoints": wide}, train=train, evaluate={"suites": ["ravel"]})
    with pytest.raises(StageError, match=r"evaluate\.suites: for sparse autoencoders"):
        run_verb(suites, "evaluate", replace=True)


def test_a_dictionary_of_another_kind_than_is_said_is_refused(trained: Path, tmp_path: Path) -> None:
    path = str(trained / "resid_post.0" / "dictionary")
    learns = {"kind": "transcoder", "reads": "resid_post.0", "writes": "resid_post.0"}
    asked = recipe(tmp_path / "run", rows_of=str(trained), dictionary=[{"path": path, "learns": learns}], harvest={})
    with pytest.raises(
        ConfigError, match=r"dictionary: a sae, and the recipe says a transcoder; .* \[\[dictionary\]\]"
    ):
        run_verb(asked, "convert")
    for both in ({"path": path}, {"path": path, "hookpoint": "resid_post.0", "learns": learns}):
        with pytest.raises(ConfigError, match="hookpoint, learns: give exactly one"):
            recipe(tmp_path, dictionary=[both], harvest={})
    with pytest.raises(ConfigError, match="a transcoder is given, which is the only one of its run"):
        recipe(
            tmp_path, dictionary=[{"path": path, "learns": learns}, {"path": path, "hookpoint": "embed"}], harvest={}
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "nowhere"], "nowhere: no artifact there, no file, and no hub id"),
        (["evaluate", "DICTIONARY", "--model", "elsewhere"], "give one of --store RUN and --text FILE"),
        (["evaluate", "DICTIONARY", "--text", "some.txt"], "--text: goes with --model FOLDER"),
        (["evaluate", "recipe.toml", "--model", "planted"], "--model: goes with a dictionary"),
        (["compare-dictionaries", "DICTIONARY"], "one evaluation; name another dictionary"),
        (["compare-dictionaries", "nowhere", "DICTIONARY"], "nowhere: no evaluation there; `mohole evaluate nowhere"),
        (["compare-dictionaries", "DICTIONARY", "DICTIONARY"], "named twice"),
        (["compare-dictionaries", "DICTIONARY", "RUN", "--page", "x.pdf"], "--page x.pdf: plots are written as"),
        (
            ["evaluate", "DICTIONARY", "--model", "planted", "--text", "none.txt"],
            "none.txt: no such file, folder or pattern; set --text",
        ),
        (["evaluate", "DICTIONARY", "--store", "nowhere"], "--store (rows_of in a recipe) names the folder of a run"),
        (
            ["evaluate", "DICTIONARY", "--model", "planted", "--text", "one.txt"],
            "the text is too short: 2 tokens in all, less than one window of 128; 128 are needed",
        ),
    ],
)
def test_what_cannot_be_measured_is_named_with_the_next_step(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.txt").write_text("the")
    place = str(trained / "resid_post.0" / "dictionary")
    result = CliRunner().invoke(
        app, [argument.replace("DICTIONARY", place).replace("RUN", str(trained)) for argument in arguments]
    )
    assert result.exit_code != 0
    assert said in str(result.exception) + result.output
    assert not result.stdout, "refused before any work"
    if "one.txt" not in arguments:  # which is tokenized before it is known to be too short
        assert [file.name for file in tmp_path.iterdir()] == ["one.txt"]
