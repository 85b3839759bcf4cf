"""Named variants of a run: what is kept, what it belongs to, and when it is refused. Also by the command line."""

import json
import signal
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.act.test_interventions import A
from tests.act.tiny import HOOKPOINT, N_LATENTS, random_sae, tiny_model
from tests.conftest import exit_status

from mohole import artifact
from mohole.act import (
    Add,
    Clamp,
    Direction,
    Latent,
    Named,
    Sources,
    StrengthWarning,
    Swap,
    UsableRange,
    Vector,
    When,
    Where,
    as_json,
    keep_range,
    make_plan,
    objections,
    open_variant,
    plan_variant,
    remove_variant,
    save_variant,
    variant_names,
    write_directions,
)  # fmt: skip
from mohole.dictionary.files import save
from mohole.errors import ArtifactError, ConfigError
from mohole.search.run import SearchedRun

SECOND = "resid_post.2"


def put_dictionary(run: Path, hookpoint: str, seed: int = 0) -> None:
    with artifact.create(
        run / hookpoint / "dictionary",
        artifact.Inputs(kind="dictionary", config={"at": hookpoint}, seed=seed),
        replace=True,
    ) as out:
        save(random_sae(hookpoint, seed=seed), out)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two dictionaries, no catalogue."""
    for hookpoint in (HOOKPOINT, SECOND):
        put_dictionary(tmp_path / "run", hookpoint)
    return tmp_path / "run"


def test_a_variant_is_kept_whole_and_is_the_same_plan_again(run: Path) -> None:
    given = [
        Clamp(5, value=9.0, hookpoint=HOOKPOINT, where=Where("response"), when=When(Latent(6, HOOKPOINT), 1.0)),
        Add(Named("calm"), value=0.5),
    ]
    directions = [Direction(SECOND, torch.tensor(A.values), "calm")]
    saved = save_variant(run, "golden-gate", given, tiny_model(), directions=directions)
    assert saved == open_variant(run, "golden-gate")
    assert saved.interventions[1].of == Vector(A.values, SECOND)  # with its numbers: no file is needed any more
    assert list(saved.needs) == [f"{HOOKPOINT}/dictionary"]  # not that of a dictionary that no latent is of

    plan = make_plan(tiny_model(), saved.interventions, Sources.of_run(run))
    assert plan_variant(run, "golden-gate", tiny_model()).key == plan.key
    (run / "variants/my own notes.json").write_text("{}")  # nobody could ask for it by name
    assert variant_names(run) == ("golden-gate",)
    remove_variant(run, "golden-gate")
    assert variant_names(run) == ()


def test_a_latent_without_a_dictionary_is_given_the_only_one(tmp_path: Path) -> None:
    put_dictionary(tmp_path, HOOKPOINT)
    saved = save_variant(tmp_path, "one", [Swap(Latent(1), Latent(2))], tiny_model())
    assert saved.interventions == (Swap(Latent(1, HOOKPOINT), Latent(2, HOOKPOINT)),)
    put_dictionary(tmp_path, SECOND)  # and keeps it when there are more
    assert plan_variant(tmp_path, "one", tiny_model()).key


def test_a_variant_of_a_dictionary_that_was_made_again_is_refused(run: Path) -> None:
    save_variant(run, "mine", [Clamp(5, value=9.0, hookpoint=HOOKPOINT)], tiny_model())
    put_dictionary(run, SECOND, seed=1)
    assert open_variant(run, "mine")
    put_dictionary(run, HOOKPOINT, seed=1)
    for use in (lambda: open_variant(run, "mine"), lambda: plan_variant(run, "mine", tiny_model())):
        with pytest.raises(ArtifactError, match=f"saved for another {HOOKPOINT}/dictionary"):
            use()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil", "no name"),
        ("", "no name"),
        (".hidden", "no name"),
        ("a" * 65, "no name"),
        ("a/b", "no name"),
        ("a\n", "no name"),
    ],
)
def test_a_name_that_leads_elsewhere_is_none(run: Path, name: str, words: str) -> None:
    for use in (open_variant, remove_variant):
        with pytest.raises(ConfigError, match=words):
            use(run, name)
    with pytest.raises(ConfigError, match=words):
        save_variant(run, name, [Clamp(5, value=9.0, hookpoint=HOOKPOINT)], tiny_model())


def test_what_cannot_be_kept_is_refused_and_leaves_nothing(run: Path) -> None:
    model, good = tiny_model(), Clamp(5, value=9.0, hookpoint=HOOKPOINT)
    with pytest.raises(ConfigError, match="say at which hookpoint"):
        save_variant(run, "x", [Clamp(5, value=9.0)], model)
    with pytest.raises(ConfigError, match="latents 0 to 39"):
        save_variant(run, "x", [Clamp(N_LATENTS, value=9.0, hookpoint=HOOKPOINT)], model)
    with pytest.raises(ConfigError, match="no intervention"):
        save_variant(run, "x", [], model)
    with pytest.raises(ConfigError, match="times_max needs the catalogue"):
        save_variant(run, "x", [Clamp(5, times_max=9.0, hookpoint=HOOKPOINT)], model)
    assert variant_names(run) == ()
    save_variant(run, "x", [good], model)
    with pytest.raises(ConfigError, match="there already"):
        save_variant(run, "x", [Clamp(6, value=9.0, hookpoint=HOOKPOINT)], model)
    assert open_variant(run, "x").interventions == (good,)
    save_variant(run, "x", [Clamp(6, value=9.0, hookpoint=HOOKPOINT)], model, replace_it=True)
    assert open_variant(run, "x").interventions[0].latent == 6
    with pytest.raises(ConfigError, match="has none of this name; there are x"):
        open_variant(run, "y")


def test_every_changed_byte_of_a_variant_is_found(run: Path) -> None:
    save_variant(run, "x", [Clamp(5, value=9.0, hookpoint=HOOKPOINT)], tiny_model())
    file = run / "variants" / "x.json"
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=r"x\.json: damaged"):
            open_variant(run, "x")
    for facts in ({"format": 9}, {"format": 1, "name": "x", "interventions": [{"kind": "clamp"}], "needs": {}}):
        file.write_bytes(artifact.sealed(facts))
        with pytest.raises(ArtifactError, match=r"x\.json: (of format 9|not a variant)"):
            open_variant(run, "x")


def a_range(low: float | None, high: float | None) -> UsableRange:
    return UsableRange(low, high, "times what it says", "active", "a rule", 3, 6, evidence=())


def test_what_a_sweep_found_is_kept_with_the_variant_and_warns_outside(run: Path) -> None:
    save_variant(run, "x", [Clamp(5, value=9.0, hookpoint=HOOKPOINT)], tiny_model())
    assert plan_variant(run, "x", tiny_model()).key  # nobody has swept it: nothing is said
    keep_range(run, "x", a_range(0.5, 1.0))
    assert open_variant(run, "x").usable == a_range(0.5, 1.0)
    assert plan_variant(run, "x", tiny_model()).key
    for low, high, words in (
        (1.25, 2.0, "1 times what it says is below its usable range, 1.25 to 2"),
        (1.25, 1.25, "below its usable range, 1.25 alone"),
        (None, None, "is usable"),
    ):
        keep_range(run, "x", a_range(low, high))
        with pytest.warns(StrengthWarning, match=words):
            plan_variant(run, "x", tiny_model())
        (said,) = objections(run, open_variant(run, "x"))
        assert said.startswith("variant x: ")
    save_variant(run, "x", [Clamp(6, value=9.0, hookpoint=HOOKPOINT)], tiny_model(), replace_it=True)
    assert open_variant(run, "x").usable is None  # it is another one now


def test_a_variant_of_the_first_format_is_read(run: Path) -> None:
    given = [Clamp(5, value=9.0, hookpoint=HOOKPOINT)]
    needs = save_variant(run, "x", given, tiny_model()).needs
    facts = {"format": 1, "name": "x", "interventions": as_json(given), "needs": needs}
    (run / "variants" / "x.json").write_bytes(artifact.sealed(facts))
    assert open_variant(run, "x").interventions == tuple(given)
    facts |= {"format": 2, "usable": {"low": "much"}}
    (run / "variants" / "x.json").write_bytes(artifact.sealed(facts))
    with pytest.raises(ArtifactError, match="no usable range mohole can read"):
        open_variant(run, "x")


@pytest.fixture
def command(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `mohole`, with the tiny model for the run's; gives (status, output, errors)."""
    monkeypatch.setattr(SearchedRun, "load_model", lambda self, *given, **more: tiny_model())

    @dataclass
    class Said:
        status: int
        out: str
        err: str

    def call(*arguments: object) -> Said:
        status = exit_status(monkeypatch, *arguments)
        return Said(status, *capsys.readouterr())

    return call


def test_the_command_line_keeps_lists_shows_uses_and_removes(
    run: Path, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no variant yet" in command("steer", run, "list").out
    clamp = f"{HOOKPOINT}:5=60"
    saved = command(
        "steer", run, "save", "gate", "--clamp", clamp, "--scale", "7=0.5", "--hookpoint", SECOND, "--where", "response"
    )
    assert (saved.status, "gate is kept" in saved.err) == (0, True)
    assert command("steer", run, "list").out == (
        f"gate: clamp latent 5 at {HOOKPOINT} value 60, response; scale latent 7 at {SECOND} by 0.5, response\n"
    )
    shown = json.loads(command("steer", run, "show", "gate").out)
    assert shown == as_json(open_variant(run, "gate").interventions)
    (tmp_path / "more.json").write_text(json.dumps(shown))
    same = command("chat", run, "--json", tmp_path / "more.json", "--prompt", "w1 w2", "--max-tokens", "5")
    chat = command("chat", run, "--variant", "gate", "--prompt", "w1 w2", "--max-tokens", "5")
    assert chat.status == 0
    assert chat.out == same.out
    assert "hooks fired at 8 of 8 tokens, rows moved at 4 of 8 tokens" in chat.out
    write_directions(tmp_path / "calm.safetensors", [Direction(HOOKPOINT, torch.tensor(A.values), "calm")])
    added = command("chat", run, "--add", "calm=2", "--direction", tmp_path / "calm.safetensors", "--prompt", "w1 w2")
    assert added.status == 0
    command("steer", run, "save", "calm", "--add", "calm=2", "--direction", tmp_path / "calm.safetensors")
    assert (
        f"calm: add a vector of {len(A.values)} numbers at {HOOKPOINT} value 2\n" in command("steer", run, "list").out
    )
    shown = command("steer", run, "show", "calm").out
    assert json.loads(shown) == as_json(open_variant(run, "calm").interventions)
    assert len(shown.splitlines()) < 20, "a number to a line hides the rest"
    assert command("steer", run, "remove", "calm").status == 0
    with monkeypatch.context() as patch:
        patch.setattr("mohole.model.chat.answer_of", lambda *rest: "桥" * 200)
        wide = command("chat", run, "--variant", "gate", "--prompt", "w1 w2", "--max-tokens", "5")
        assert wide.out.count("桥") == 400, "a text without a space to break at is cut"
    assert command("steer", run, "remove", "gate").status == 0
    assert variant_names(run) == ()


def test_who_talks_is_told_how_to_end_and_ends_quietly(run: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Keyboard(StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *size: Any) -> str:
            if not (line := super().readline(*size)):
                signal.raise_signal(signal.SIGINT)
            return line

    monkeypatch.setattr("sys.stdin", Keyboard("w1 w2\n\n"))
    said = command("chat", run, "--clamp", f"{HOOKPOINT}/5=60", "--max-tokens", "5")
    waits, ends = said.err.splitlines()
    assert (said.status, "loading its model" in waits, "Ctrl-D or Ctrl-C ends" in ends) == (0, True, True)
    assert said.out.count("you: ") == 3
    assert said.out.count("hooks fired") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("steer", "RUN"), "a run; add save NAME"),
        (("steer", "RUN", "save"), "of which variant? add its NAME"),
        (("steer", "RUN", "save", "x"), "no intervention; give one"),
        (("steer", "RUN", "show", "x"), "has none of this name"),
        (("steer", "RUN", "list", "x"), "list takes no name"),
        (("steer", "RUN", "show", "x", "--clamp", "3=1"), "takes no interventions"),
        (("steer", "RUN", "save", "x", "--clamp", "3"), "LATENT=STRENGTH is needed"),
        (("steer", "RUN", "save", "x", "--clamp", "three=8x"), "LATENT=STRENGTH is needed"),
        (("steer", "RUN", "save", "x", "--clamp", "3=nanx"), "strength nan is not a finite number"),
        (("steer", "RUN", "save", "x", "--clamp", "3=inf"), "strength inf is not a finite number"),
        (("steer", "RUN", "save", "x", "--clamp", "3=8y"), "'8y' is no strength"),
        (("steer", "RUN", "save", "x", "--ablate", "3", "--hookpoint", "resid_post.9"), "no dictionary given for it"),
        (("steer", "RUN", "save", "x", "--add", "v=2"), "direction v: not given"),
        (("steer", "RUN", "save", "x", "--direction", "nowhere.pt", "--add", "v=2"), "nowhere.pt: no such file"),
        (("steer", "RUN", "save", "x", "--json", "nowhere.json"), "no such file"),
        (("steer", "nowhere.toml", "save", "x"), "variants are of a run's folder"),
        (("steer", "RUN", "sweep"), "of what? name a latent or a variant"),
        (("steer", "RUN", "sweep", "x"), "has none of this name"),
        (("steer", "RUN", "sweep", "5", "--clamp", "6=1x"), "sweeps 5 alone"),
        (("steer", "RUN", "sweep", "5"), f"say at which hookpoint, such as {HOOKPOINT}/5; there are"),
        (("steer", "RUN", "sweep", "5", "--hookpoint", HOOKPOINT), "times_max needs the catalogue"),
        (("steer", "RUN", "sweep", "x", "--where", "prompt"), "a variant says itself where it acts"),
        (("steer", "RUN", "sweep", "5", "--strengths", "1,a"), "numbers with commas between them"),
        (("steer", "RUN", "list", "--samples", "3"), "an option of sweep is given"),
        (("chat", "RUN", "--prompt", "w1"), "give interventions such as --clamp 1234=8x, or --variant NAME"),
        (("chat", "RUN", "--prompt", "w1", "--variant", "x"), "has none of this name"),
    ],
)  # fmt: skip
def test_commands_that_cannot_be_meant(run: Path, command, arguments: tuple[str, ...], words: str) -> None:
    said = command(*(run if each == "RUN" else each for each in arguments))
    assert said.status == 1
    assert words in said.err
