"""Recipes: what is meant is read, what cannot be meant is named with the nearest thing that can."""

import json
from pathlib import Path
from typing import Any

import pytest

from mohole.config import DatasetCorpus, PlantedCorpus, Recipe, ReLU, TextCorpus, TopK, parse, read_recipe, settings
from mohole.config.train import BatchTopK
from mohole.errors import ConfigError

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_and_its_overrides_are_read(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, 'run = "runs/x"\n[train]\nsteps = 7\nnonlinearity = { kind = "topk", k = 3 }\n')
    recipe = read_recipe(path, ["train.lr=1e-3", "model.path=some/folder", "corpus.kind=text", "corpus.path=a b.txt"])
    assert (recipe.train.steps, recipe.train.nonlinearity, recipe.train.lr) == (7, TopK(k=3), 1e-3)
    assert recipe.model.path == "some/folder"
    assert recipe.corpus == TextCorpus(path="a b.txt")


def test_an_override_of_a_kind_leaves_what_the_file_says_of_the_other_one(tmp_path: Path) -> None:
    text = 'run = "x"\n[corpus]\nkind = "text"\npath = "a"\nmax_tokens = 9\n[train]\nnonlinearity = { kind = "topk", k = 3 }\n'
    path = recipe_file(tmp_path, text)
    corpus = read_recipe(path, ["corpus.name=b", "corpus.kind=dataset"]).corpus
    assert corpus == DatasetCorpus(name="b", max_tokens=9)  # what both kinds know is kept
    assert read_recipe(path, ["train.nonlinearity.kind=relu"]).train.nonlinearity == ReLU()
    assert read_recipe(path, ["train.nonlinearity.kind=batchtopk"]).train.nonlinearity == BatchTopK(k=3)
    assert read_recipe(path, ["train.nonlinearity.kind=topk"]).train.nonlinearity == TopK(k=3)
    for overrides in (
        ["train.nonlinearity.kind=relu", "train.nonlinearity.k=4"],
        ["corpus.kind=dataset", "corpus.path=b"],
    ):
        with pytest.raises(ConfigError, match="no such key"):
            read_recipe(path, overrides)


def test_the_last_override_wins(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, 'run = "x"')
    assert read_recipe(path, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_valid(path: Path) -> None:
    read_recipe(path)


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe(run="x").seed = 1  # type: ignore[misc]


def test_a_dumped_recipe_reads_back_the_same() -> None:
    recipe = Recipe(run="x", corpus=PlantedCorpus(n_documents=3))
    assert parse(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"run": "x", "train": {"stepz": 3}}, "train.stepz: no such key in Train; did you mean train.steps?"),
        ({"run": "x", "trian": {}}, "trian: no such key in Recipe; did you mean train?"),
        ({"run": "x", "train": {"nonlinearity": {"k": 0}}}, "train.nonlinearity.k: 0 is too small; the smallest is 1"),
        ({"run": "x", "train": {"n_latents": 4}}, "train.nonlinearity.k: 16 is more than n_latents; the largest is 4"),
        ({"run": "x", "corpus": {"kind": "txt"}}, "corpus: 'txt' is not one of the choices; did you mean 'text'?"),
        ({"run": "x", "corpus": {"kind": "text"}}, "corpus.path: needed, and not given"),
        ({"run": "x", "model": {"dtype": "float23"}}, "'float23' is not one of the choices; did you mean 'float32'?"),
        ({"run": "x", "train": {"steps": "many"}}, "train.steps: 'many'"),
        ({"run": "x", "train": {"steps": 1.5}}, "train.steps: 1.5"),
        ({"run": "x", "train": {"lr": float("nan")}}, "train.lr: nan"),
        ({"run": "x", "windows": {"held_out": 1.0}}, "windows.held_out: 1.0 is too large; it must be less than 1.0"),
        ({"run": "x", "harvest": {"hookpoints": []}}, "harvest.hookpoints"),
        ({"run": ""}, "run: ''"),
        (
            {"run": "x", "harvest": {"hookpoints": "resid_post.1"}},
            "harvest.hookpoints: 'resid_post.1': a list is needed; did you mean [\"resid_post.1\"]?",
        ),
        (
            {"run": "x", "train": {"nonlinearity": "batchtop"}},
            "train.nonlinearity: 'batchtop': a table is needed; did you mean { kind = \"batchtopk\" }?",
        ),
        ({"run": "x", "train": {"optimiser": 3}}, "a table is needed with a kind, one of adam, signum, muon"),
        ({"run": "x", "train": 3}, "train: 3: a table is needed"),
        (
            {"run": "x", "train": {"learns": {"kind": "transcoder"}}},
            "train.learns.reads: needed, and not given; train.learns.writes: needed, and not given",
        ),
        ({"run": "x", "train": dict.fromkeys("abcde", 1)}, "(and 2 more)"),
        ({}, "run: needed, and not given"),
        ({"run": "x", "steer": {"clamp": {"hookpoint": "a"}}}, "steer.clamp.latent, concept: give exactly one"),
    ],
)
def test_what_cannot_be_meant_is_named(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tables)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["train.steps", "=3", "run.x=3"])
def test_an_override_that_is_none_is_named(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="-o "):
        read_recipe(recipe_file(tmp_path, 'run = "x"'), [override])


@pytest.mark.parametrize(("text", "message"), [(b"run = ", "not valid TOML"), (b"\xff\xfe", "not UTF-8")])
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such recipe"):
        read_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="a folder, not a recipe"):
        read_recipe(tmp_path)


def test_every_setting_is_listed_with_its_default_and_can_be_given_back() -> None:
    tables = settings()
    listed = {(table.partition(",")[0], key): default for table, rows in tables.items() for key, default, _ in rows}
    assert listed["train", "nonlinearity.k"] == "16"
    assert listed["corpus", "path"] == "required"
    assert listed["steer", "clamp.times_max"] == "1.0"
    plain = parse({"run": "x"})
    for (table, key), default in listed.items():
        if table not in ("run", "corpus", "[dictionary]") and not key.startswith("clamp") and default != "none":
            value, *parts = plain.model_dump(mode="json")[table], *key.split(".")
            nested = value[parts[0]] or {} if len(parts) == 2 else {}
            if len(parts) == 2 and parts[1] not in nested and ("kind" in nested or not nested):
                continue  # of a kind that is not the default one
            for part in parts:
                value = value[part]
            assert json.dumps(list(value) if isinstance(value, tuple) else value) == default, key


def test_a_key_that_some_kinds_have_says_which() -> None:
    said = {(key, meaning.partition(":")[0]) for key, _, meaning in settings()["train"]}
    assert {("nonlinearity.k", "topk"), ("nonlinearity.k", "batchtopk"), ("learns.skip", "transcoder")} <= said
    assert ("sparsity.warmup_steps", "Steps over which the weight rises from zero.") in said  # all kinds have it


def test_every_setting_says_what_it_means() -> None:
    silent = [f"{table}.{key}" for table, rows in settings().items() for key, _, meaning in rows if not meaning]
    assert silent == []


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ('seed="3"', "seed: '3': input should be a valid integer"),
        ("train.steps=true", "train.steps: True: input should be a valid integer"),
        ('train.lr="0.01"', "train.lr: '0.01': input should be a valid number"),
        ('model.allow_download="yes"', "model.allow_download: 'yes': input should be a valid boolean"),
        ("train.auxk_weight=inf", "train.auxk_weight: inf: input should be a finite number"),
        ("steer.temperature=nan", "steer.temperature: nan: input should be a finite number"),
        ("train.n_latents=10000000000", "train.n_latents: 10000000000 is too large; the largest is 2147483648"),
        ("corpus.zebras=5", "corpus.zebras: no such key in TextCorpus; it has"),
    ],
)
def test_a_value_of_another_kind_is_never_taken_for_what_it_is_not(tmp_path: Path, override: str, says: str) -> None:
    path = recipe_file(tmp_path, 'run = "x"\ncorpus = { kind = "text", path = "a" }\n')
    with pytest.raises(ConfigError) as caught:
        read_recipe(path, [override])
    assert says in str(caught.value)


def test_the_second_line_of_an_override_is_not_a_second_setting(tmp_path: Path) -> None:
    recipe = read_recipe(recipe_file(tmp_path, 'run = "x"'), ["model.path=1\nother=2"])
    assert recipe.model.path == "1\nother=2"


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b'run = "x"')
    assert read_recipe(path).run == "x"
