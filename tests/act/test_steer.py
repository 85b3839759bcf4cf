"""Clamps inside a model: every token edited, the text the same with and without a cache, exact rows, honest counts."""

import json

import numpy as np
import pytest
import torch
from tests.act.test_clamp import CATALOGUE, FakeCatalogue
from tests.act.tiny import HOOKPOINT, N_LATENTS, constant_sae, prompt, random_sae, tiny_model

from mohole import artifact, config
from mohole.act import Clamp, check, demonstrate, read_steering, steer
from mohole.act.bank import Bank
from mohole.errors import ArtifactError, ConfigError, HookpointError, ModelError, StageError
from mohole.model import Edit

STRONG = Clamp(5, value=60.0)


def test_a_strong_clamp_changes_the_text_and_fires_for_every_token():
    model, tokens = tiny_model(), prompt(batch=2)
    plain = model.generate(tokens, max_new_tokens=12)
    steered = steer(model, random_sae(), [STRONG]).generate(tokens, max_new_tokens=12)
    assert not torch.equal(plain, steered.tokens)
    assert steered.n_fired == steered.n_tokens == 2 * (7 + 12 - 1)


def test_the_text_is_the_same_with_and_without_a_cache():
    steered = steer(tiny_model(), random_sae(), [STRONG, Clamp(8, value=-9.0)])
    cached = steered.generate(prompt(), max_new_tokens=20)
    whole = steered.generate(prompt(), max_new_tokens=20, use_cache=False)
    assert torch.equal(cached.tokens, whole.tokens)
    assert cached.n_tokens == whole.n_tokens == 7 + 20 - 1


def test_generated_text_is_what_the_steered_logits_say():
    """Generation edits every step as one whole pass over the finished text would."""
    steered = steer(tiny_model(), random_sae(), [STRONG])
    written = steered.generate(prompt(), max_new_tokens=15).tokens
    logits = steered.logits(written)
    assert torch.equal(logits[:, 6:-1].argmax(-1), written[:, 7:])


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_begin_of_text_token_is_left_alone_and_every_other_is_not(use_cache):
    """No dictionary has seen its row. It is neither edited nor counted, with or without a cache, by any of the ways to steer."""
    model, sae = tiny_model(), random_sae()
    tokens = torch.cat([torch.tensor([[1]]), prompt()], dim=1)
    steered = steer(model, sae, [STRONG])
    plain = model.read(tokens, [HOOKPOINT])[HOOKPOINT]
    edited = model.read(tokens, [HOOKPOINT], steered.edits)[HOOKPOINT]
    assert torch.equal(edited[:, 0], plain[:, 0])
    assert ((edited[:, 1:] - plain[:, 1:]).norm(dim=-1) > 1).all()
    assert check(steered, tokens)[0].n_rows == 7
    written = steered.generate(tokens, max_new_tokens=5, use_cache=use_cache)
    assert written.n_fired == written.n_tokens == 7 + 5 - 1
    assert torch.equal(written.tokens, model.generate(tokens, max_new_tokens=5, edits=steered.edits))
    assert torch.equal(steered.logits(written.tokens)[:, 7:-1].argmax(-1), written.tokens[:, 8:])


def test_a_clamp_at_the_value_that_is_there_changes_nothing():
    """c = f at every token: the same logits to the bit, the same text."""
    model, sae = tiny_model(), constant_sae(2.0)
    same = steer(model, sae, [Clamp(0, value=2.0), Clamp(1, value=0.0)])
    assert torch.equal(same.logits(prompt()), model.logits(prompt()))
    assert torch.equal(same.generate(prompt(), max_new_tokens=15).tokens, model.generate(prompt(), max_new_tokens=15))
    other = steer(model, sae, [Clamp(0, value=40.0)])
    assert not torch.equal(other.logits(prompt()), model.logits(prompt()))


def test_no_clamp_is_no_change():
    model = tiny_model()
    assert torch.equal(steer(model, random_sae(), []).logits(prompt()), model.logits(prompt()))


def test_zero_removes_the_feature_and_nothing_else():
    model, sae = tiny_model(), random_sae()
    rows = model.read(prompt(), [HOOKPOINT])[HOOKPOINT][0]
    latent = int(sae.encode(rows).dense().sum(0).argmax())
    edits = steer(model, sae, [Clamp(latent, value=0.0)]).edits
    removed = model.read(prompt(), [HOOKPOINT], edits)[HOOKPOINT][
        0, 1:
    ]  # position 0 is taken for a begin-of-text token
    rows = rows[1:]
    active = sae.encode(rows).column(latent)
    assert active.max() > 1
    torch.testing.assert_close((rows - removed) @ sae.W_dec[latent], active, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rows - removed, active[:, None] * sae.W_dec[latent], rtol=1e-4, atol=1e-4)


def test_the_check_finds_exact_rows_exact():
    (found,) = check(steer(tiny_model(), random_sae(), [STRONG, Clamp(6, value=0.0)]), prompt(batch=3))
    assert found.hookpoint == HOOKPOINT
    assert found.n_rows == 21
    assert found.row_error < 1e-5
    assert found.reads_back is not None
    assert 0 <= found.reads_back <= 1


def test_the_check_finds_a_wrong_edit(monkeypatch):
    """An edit that adds c d instead of moving to c is not a clamp, and the measurement says so."""
    steered = steer(tiny_model(), constant_sae(2.0), [Clamp(0, value=10.0)])
    assert check(steered, prompt())[0].row_error < 1e-5
    adding = lambda self, rows, seen, masks: (rows + 10.0 * self.along_TD[0], rows[..., 0] == rows[..., 0])  # noqa: E731
    monkeypatch.setattr(Bank, "act", adding)
    assert check(steered, prompt())[0].row_error > 0.01


def test_two_hookpoints_at_once():
    model, early, late = tiny_model(), random_sae("resid_post.0", seed=4), random_sae("resid_post.2", seed=6)
    clamps = [Clamp(5, value=9.0, hookpoint="resid_post.0"), Clamp(7, value=11.0, hookpoint="resid_post.2")]
    steered = steer(model, [early, late], clamps)
    assert [found.hookpoint for found in check(steered, prompt())] == ["resid_post.0", "resid_post.2"]
    assert max(found.row_error for found in check(steered, prompt())) < 1e-5
    one = steer(model, [early, late], clamps[:1])
    assert not torch.equal(steered.logits(prompt()), one.logits(prompt()))
    assert steered.generate(prompt(), max_new_tokens=3).n_fired == 9


def test_a_clamp_that_misses_steps_is_not_called_steered(monkeypatch):
    """As where a server runs decode steps past the hooks: the text must not be returned as steered."""
    model = tiny_model()
    real = type(model)._run

    def only_the_prompt(self, given, *, edits=(), tally=None, **rest):
        result = real(self, given, edits=edits if given.first == 0 else (), **rest)
        if tally is not None:
            tally.add(given.tokens.numel(), [given.tokens.numel()] * len(edits))  # and its own count lies
        return result

    monkeypatch.setattr(type(model), "_run", only_the_prompt)
    with pytest.raises(StageError, match=r"fired at 7 of 11 positions .* not steered"):
        steer(model, random_sae(), [STRONG]).generate(prompt(), max_new_tokens=5)


def test_a_step_that_is_missed_is_found_out_where_later_ones_run_its_tokens_again(monkeypatch):
    """Without a cache the last pass runs all tokens: each was seen, and the first one to be written was not steered."""
    model = tiny_model()
    real, n_passes = type(model)._run, 0

    def all_but_the_first(self, given, *, edits=(), tally=None, **rest):
        nonlocal n_passes
        n_passes += 1
        result = real(self, given, edits=() if n_passes == 1 else edits, **rest)
        if tally is not None:
            tally.add(given.tokens.numel(), [given.tokens.numel()] * len(edits))
        return result

    monkeypatch.setattr(type(model), "_run", all_but_the_first)
    with pytest.raises(StageError, match=r"fired at 8 of 8 positions \(8 of 15 rows\)"):
        steer(model, random_sae(), [STRONG]).generate(prompt(), max_new_tokens=2, use_cache=False)


def test_the_hookpoint_must_be_the_models():
    with pytest.raises(HookpointError, match=r"resid_post\.9"):
        steer(tiny_model(), random_sae("resid_post.9"), [STRONG])


def test_hooks_are_gone_afterwards():
    model, before = tiny_model(), tiny_model().logits(prompt())
    steer(model, random_sae(), [STRONG]).generate(prompt(), max_new_tokens=4)
    with pytest.raises(RuntimeError, match="broken"):
        model.logits(prompt(), edits=[*steer(model, random_sae(), [STRONG]).edits, Edit("resid_post.2", _break)])
    assert torch.equal(model.logits(prompt()), before)


def _break(rows, first_position):
    raise RuntimeError("broken")


def run_demonstration(path, **changes):
    arguments = {
        "latent": 5,
        "label": "a label",
        "chosen_by": "the test",
        "prompts": ["w1 w2 w3", "w9"],
        "seed": 7,
    } | changes
    strong = config.Clamp(hookpoint=HOOKPOINT, latent=5, times_max=2.0)
    settings = arguments.pop("settings", config.Steer(max_new_tokens=6, clamp=strong))
    inputs = artifact.Inputs(kind="steering", config={}, seed=7)
    with artifact.create(path, inputs) as out:
        demonstrate(out, tiny_model(), random_sae(), CATALOGUE, settings, **arguments)
    return read_steering(path)


def test_a_demonstration_shows_both_texts_and_proves_the_steering(tmp_path):
    shown = run_demonstration(tmp_path / "steering")
    assert (shown.hookpoint, shown.latent, shown.label) == (HOOKPOINT, 5, "a label")
    assert (shown.maximum, shown.times_max, shown.temperature) == (5.0, 2.0, 0.0)
    assert [item.prompt for item in shown.generations] == ["w1 w2 w3", "w9"]
    for item, n_prompt in zip(shown.generations, (3, 1), strict=True):
        assert item.n_fired == item.n_tokens <= 1 + n_prompt + 6 - 1
        assert item.plain != item.steered
        assert not item.plain.startswith(item.prompt)
        assert not item.plain.lstrip().startswith("<s>")
    assert shown.row_error < 1e-5


def test_a_demonstration_is_the_models_own_text(tmp_path):
    model = tiny_model()
    shown = run_demonstration(tmp_path / "steering")
    tokens = model.generate(model.tokenizer.prompt("w1 w2 w3"), max_new_tokens=6, stop_tokens=[2])[0, 4:]
    assert shown.generations[0].plain.split() == [model.tokenizer.piece(t).strip() for t in tokens.tolist() if t != 2]


def test_the_same_seed_writes_the_same_bytes_and_strength_comes_from_the_recipe(tmp_path):
    settings = config.Steer(
        max_new_tokens=6, temperature=0.8, clamp=config.Clamp(hookpoint=HOOKPOINT, latent=5, times_max=-3.0)
    )
    for name in ("a", "b"):
        run_demonstration(tmp_path / name, settings=settings)
    first, second = ((tmp_path / name / "steering.json").read_bytes() for name in ("a", "b"))
    assert first == second
    assert read_steering(tmp_path / "a").times_max == -3.0
    run_demonstration(tmp_path / "c", settings=settings, seed=8)
    assert (tmp_path / "c" / "steering.json").read_bytes() != first


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"prompts": []}, ConfigError, "steer.prompts: empty"),
        ({"prompts": ["w1", ""]}, ConfigError, "steer.prompts: empty"),
        ({"latent": 0}, StageError, "never active"),
        ({"latent": 400}, ConfigError, f"latents 0 to {N_LATENTS - 1}"),
        ({"prompts": ["w1 " * 60]}, ModelError, "context"),
    ],
)
def test_a_demonstration_that_cannot_be_made_leaves_nothing(tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        run_demonstration(tmp_path / "steering", **changes)
    assert not (tmp_path / "steering").exists()


def test_an_inexact_clamp_is_no_demonstration(tmp_path, monkeypatch):
    real = Bank.act
    monkeypatch.setattr(Bank, "act", lambda self, rows, *rest: (real(self, rows, *rest)[0] * 1.01, rows[..., 0] == 0))
    with pytest.raises(StageError, match="not exact"):
        run_demonstration(tmp_path / "steering")


def test_a_damaged_demonstration_is_named(tmp_path):
    with artifact.create(tmp_path / "steering", artifact.Inputs(kind="steering", config={}, seed=0)) as out:
        (out / "steering.json").write_text(json.dumps({"latent": 3}))
    with pytest.raises(ArtifactError, match=r"steering\.json: has no generations"):
        read_steering(tmp_path / "steering")


def test_the_catalogue_must_have_the_latents_maximum(tmp_path):
    tiny = FakeCatalogue(HOOKPOINT, np.ones(3, dtype=np.float32))
    with pytest.raises(ConfigError, match="made for 3 latents"):
        steer(tiny_model(), random_sae(), [Clamp(5, times_max=1.0)], catalogue=tiny)
