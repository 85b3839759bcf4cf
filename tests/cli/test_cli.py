"""The command line as a user meets it: quick help, one-line errors, nothing half-written taken for whole."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.conftest import exit_status

from mohole import __version__, artifact
from mohole.errors import ArtifactError

Mohole = Callable[..., tuple[int, str, str]]

TINY = """
run = "{run}"
[machine]
processes = 1
threads = 1
[corpus]
kind = "planted"
n_documents = 120
[harvest]
hookpoints = ["resid_post.0"]
[train]
n_latents = 64
nonlinearity = {{ kind = "topk", k = 4 }}
steps = 12
batch_rows = 256
[evaluate]
max_documents = 10
"""


@pytest.fixture
def mohole(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Mohole:
    """Run the command line in this process; returns exit status, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = exit_status(monkeypatch, *arguments)
        out, err = capfd.readouterr()
        return status, out, err

    return call


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(run=tmp_path / "run"), encoding="utf-8")
    return path


def one_line(err: str) -> str:
    """The error, which is the last line; lines before it tell of stages that were finished."""
    *before, last = err.splitlines()
    assert last.startswith("error: "), err
    assert all(": done in " in line for line in before), err
    return last


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_mohole_and_asking_for_help_load_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'ray', 'sklearn', 'scipy', 'numba', 'pyarrow', 'datasets', 'fsspec'} & set(sys.modules)"
    assert python(f"import sys, mohole; print({heavy})") == "set()\n"
    code = (
        "import sys\nfrom mohole.cli import main\nsys.argv = ['mohole', '--help']\n"
        f"try:\n    main()\nexcept SystemExit:\n    print({heavy})"
    )
    out = python(code)
    assert out.endswith("set()\n")
    for verb in ("run", "harvest", "shuffle", "train", "evaluate", "catalogue", "label", "steer", "show", "plant"):
        assert verb in out


def test_help_shows_every_word_of_itself(mohole: Mohole) -> None:
    """Brackets are markup to the library that prints it: a table's name would vanish."""
    assert "[sweep] or [[train.dictionary]]" in " ".join(mohole("sweep", "--help")[1].replace("│", " ").split())


def test_every_lazy_name_is_there() -> None:
    import mohole as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = package.nonsense


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.stepz=3"], "train.stepz: no such key in Train; did you mean train.steps?"),
        (["train.nonlinearity.k=0"], "train.nonlinearity.k: 0 is too small"),
        (["model.path=no/such/model"], "no/such/model: no such folder"),
        (["model.path={tmp}"], "no config.json"),
        (["corpus.kind=text", "corpus.path={tmp}/empty.txt"], "no text in it"),
        (["corpus.kind=text", "corpus.path={tmp}/binary.txt"], "binary.txt: not UTF-8 text (byte 1)"),
        (["corpus.kind=text", "corpus.path={tmp}/short.txt"], "less than one window of 128"),
        (["corpus.kind=text", "corpus.path={tmp}/missing.txt"], "missing.txt: no such file"),
        (["harvest.hookpoints=['resid_post.40']"], "resid_post.40: planted has 4 layers (0-3)"),
        (["harvest.hookpoints=['resid_pots.1']"], "did you mean resid_post.1?"),
        (["harvest.hookpoints=['resid_post.1', 'blocks.1.hook_resid_post']"], "resid_post.1 is named twice"),
        (["steer.clamp={hookpoint = 'resid_post.3', latent = 1}"], "resid_post.3 is not harvested"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(
    mohole: Mohole, recipe: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    # the planted corpus's own keys make no sense for text files
    recipe.write_text(
        recipe.read_text().replace("n_documents = 120\n", "") if "corpus.kind=text" in overrides else recipe.read_text()
    )
    (tmp_path / "empty.txt").write_text("\n\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\x7f\xfeELF")
    (tmp_path / "short.txt").write_text("Only a few words.\n\nAnd a few more.")
    arguments = [part for override in overrides for part in ("-o", override.replace("{tmp}", str(tmp_path)))]
    status, _, err = mohole("harvest", recipe, *arguments)
    assert status == 1
    assert message in one_line(err)
    assert not list((tmp_path / "run").rglob(artifact.MANIFEST)) or "hookpoints" in overrides[0]


def test_a_text_that_could_not_be_used_is_not_in_the_way_of_the_next(
    mohole: Mohole, recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(recipe.read_text().replace("n_documents = 120\n", ""))
    text = tmp_path / "text.txt"
    text.write_text("|".join(f"Story {n} is about a dragon who likes {n * n} apples. " * 6 for n in range(40)))
    given = ("harvest", recipe, "-o", "corpus.kind=text", "-o", f"corpus.path={text}")
    assert "1 document, " in one_line(mohole(*given)[2])
    status, _, err = mohole(*given, "-o", "corpus.separator=|")
    assert status == 0, err


def test_a_missing_recipe_and_a_missing_artifact_are_named(mohole: Mohole, recipe: Path, tmp_path: Path) -> None:
    assert "no such recipe" in one_line(mohole("run", tmp_path / "nowhere.toml")[2])
    assert "no artifact there; `mohole harvest RECIPE` makes it" in one_line(mohole("train", recipe)[2])
    assert "no such folder" in one_line(mohole("show", tmp_path / "nowhere")[2])
    (tmp_path / "empty").mkdir()
    assert "no artifact and no recipe in it" in one_line(mohole("show", tmp_path / "empty")[2])


def test_not_a_number_in_an_activation_is_named(mohole: Mohole, recipe: Path, tmp_path: Path) -> None:
    import importlib.resources
    import shutil

    shutil.copytree(Path(str(importlib.resources.files("mohole"))) / "planted" / "weights", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    spoiled = weights["model.layers.0.mlp.down_proj.weight"].copy()
    spoiled[3, 5] = np.nan
    save_file(
        weights | {"model.layers.0.mlp.down_proj.weight": spoiled},
        tmp_path / "model" / "model.safetensors",
        {"format": "pt"},
    )
    status, _, err = mohole("harvest", recipe, "-o", f"model.path={tmp_path / 'model'}")
    assert status == 1
    assert "NaN" in one_line(err)
    assert not (tmp_path / "run" / "activations").exists()


def test_a_full_disk_is_named_and_nothing_half_written_is_left(mohole: Mohole, recipe: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    try:
        status, _, err = mohole("harvest", recipe, "-o", f"run={disk}/run")
        assert status == 1
        assert "the disk is full" in one_line(err)
        assert (disk / "run" / "corpus" / artifact.MANIFEST).exists()
        assert not (disk / "run" / "activations").exists()
        assert not list((disk / "run").glob(".*.partial/shards/runs/*/*"))  # none half written; whole ones are kept
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # the corpus may still be mapped


def test_a_truncated_artifact_is_named_by_the_next_stage(mohole: Mohole, recipe: Path, tmp_path: Path) -> None:
    assert mohole("harvest", recipe)[0] == 0
    shard = min((tmp_path / "run" / "activations").rglob("shards/**/*.safetensors"))
    os.truncate(shard, shard.stat().st_size - 1000)
    status, _, err = mohole("train", recipe)
    assert status == 1
    assert shard.name in one_line(err)


def test_an_interrupt_keeps_what_is_finished_and_what_training_can_go_on_from(recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mohole", "run", str(recipe), "-o", "train.steps=1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    draft = tmp_path / "run" / "resid_post.0" / ".dictionary.partial"
    deadline = time.monotonic() + 120
    while not draft.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("error: interrupted; what was finished is kept")
    assert "Traceback" not in err
    assert (draft / "draft-of").exists()
    assert artifact.open_artifact(tmp_path / "run" / "activations").kind == "activations"
    with pytest.raises(ArtifactError):
        artifact.open_artifact(tmp_path / "run" / "resid_post.0" / "dictionary")


def test_debug_shows_the_traceback(recipe: Path) -> None:
    command = [sys.executable, "-m", "mohole", "--debug", "run", str(recipe), "-o", "seed=-1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "seed: -1 is too small" in done.stderr


def test_hookpoints_are_listed(mohole: Mohole) -> None:
    status, out, _ = mohole("show", "hookpoints", "planted")
    assert status == 0
    assert "resid_post.L" in out
    assert "0-3" in out


def test_the_version_is_printed_with_and_without_a_verb(mohole: Mohole) -> None:
    for arguments in (("--version",), ("--version", "run", "x.toml")):
        status, out, err = mohole(*arguments)
        assert (status, out, err) == (0, f"mohole {__version__}\n", "")


def test_recipes_say_what_they_are_for(mohole: Mohole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    recipes = Path("recipes")
    status, out, _ = mohole("show", recipes)
    assert status == 0
    said = " ".join(out.split())
    for name in ("demo.toml", "stories260k.toml", "synthetic.toml"):
        assert name in said
    assert "The main job on the built-in model" in said
    assert "mohole run" in said
    status, out, _ = mohole("show", recipes / "demo.toml")
    assert status == 0
    assert "stories260k" not in out
    status, _, err = mohole("show", tmp_path)
    assert status == 1
    assert "no artifact and no recipe in it; `mohole run RECIPE.toml` makes artifacts" in one_line(err)


def test_settings_are_listed_whole_or_by_table(mohole: Mohole) -> None:
    status, out, _ = mohole("show", "settings", "windows")
    assert status == 0
    assert "held_out" in out
    assert "n_latents" not in out
    assert "n_documents" in mohole("show", "settings", "corpus")[1]
    assert "no such table; did you mean train?" in one_line(mohole("show", "settings", "trian")[2])
    assert "no such table; a recipe has run, seed, machine" in one_line(mohole("show", "settings", "zzz")[2])


def test_a_second_word_that_is_no_latent_is_named(mohole: Mohole, tmp_path: Path) -> None:
    assert "goes with a catalogue" in one_line(mohole("show", tmp_path, "x")[2])
    assert "shown by mohole show RUN/HOOKPOINT/catalogue LATENT" in one_line(mohole("show", tmp_path, "3")[2])


def test_a_place_that_cannot_be_is_named_with_the_next_step(mohole: Mohole, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = mohole("harvest", recipe, "-o", f"run={tmp_path}/file")
    assert status == 1
    assert f"{tmp_path}/file: a file, where a folder is needed; name another place" in one_line(err)
    status, _, err = mohole("harvest", recipe, "-o", "run=/proc/none")  # where nobody can make a folder
    assert status == 1
    assert "/proc/none: no such file or folder; check the spelling, or make the folder" in one_line(err)
