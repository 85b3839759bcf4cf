"""The self-test refuses every wrong mapping that other libraries have shipped, and names the place."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mohole.errors import HookpointError, ModelError
from mohole.model import LanguageModel, new_model
from mohole.model.families import BLOOM, FALCON, FAMILIES, GPT2, GRANITE, LLAMA, NEOX, OPT, SANDWICH, Layout
from mohole.model.hooks import Site
from mohole.model.self_test import measure, prove_hookpoints

Tiny = Callable[[str], LanguageModel]

WRONG: list[tuple[str, str, Layout, str]] = [
    ("attention before its post-norm", "gemma2", replace(SANDWICH, attn_out="self_attn"), "attn_out.0"),
    ("MLP before its post-norm", "olmo2", replace(SANDWICH, mlp_out="mlp"), "mlp_out.0"),
    ("both before their post-norms", "gemma3_text", LLAMA, "attn_out.0"),
    ("branches without their multiplier", "granite", replace(GRANITE, branch_scale=None), "attn_out.0"),
    ("logits without their divisor", "granite", replace(GRANITE, logit_divisor=None), "head"),
    ("logits without their multiplier", "cohere", LLAMA, "head"),
    ("embedding without its multiplier", "granite", replace(GRANITE, embed_scale=None), "embed"),
    ("embedding before its norm", "bloom", replace(BLOOM, embed=()), "embed"),
    ("embedding before its projection", "opt_projected", replace(OPT, embed=()), "embed"),
    ("modules that include the residual", "bloom", replace(FALCON, embed=BLOOM.embed), "attn_out.0"),
    ("one module that includes the residual", "bloom", replace(BLOOM, mlp_out="mlp"), "mlp_out.0"),
    ("the norm in place of the attention", "llama", replace(LLAMA, attn_out="input_layernorm"), "attn_out.0"),
    ("attention taken for the MLP", "gpt2", replace(GPT2, mlp_out="attn"), "mlp_out.0"),
    ("a projection before the last", "opt", replace(OPT, mlp_in="fc2"), "mlp_in.0"),
    ("the attention's input in place of the MLP's", "llama", replace(LLAMA, mlp_in="input_layernorm"), "mlp_in.0"),
    ("its value right, but not what the MLP reads", "gptj", replace(GPT2, mlp_in="attn.q_proj"), "mlp_in.0"),
    ("no final norm", "gpt_neox", replace(NEOX, final=()), "head"),
    ("another norm for the final one", "llama", replace(LLAMA, final=("model.layers.0.input_layernorm",)), "head"),
]


@pytest.mark.parametrize(("name", "layout", "place"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_layout_is_refused(tiny: Tiny, name: str, layout: Layout, place: str) -> None:
    wrong = LanguageModel(tiny(name).hf, layout, name="wrong")
    with pytest.raises(ModelError, match="is refused") as caught:
        prove_hookpoints(wrong)
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)
    assert wrong.self_test is None


def test_a_wrong_length_is_seen_though_the_direction_is_right(tiny: Tiny) -> None:
    checks = measure(LanguageModel(tiny("granite").hf, replace(GRANITE, branch_scale=None), name="wrong")).checks
    failed = next(check for check in checks if "attn_out.0" in check.what)
    assert failed.cosine == pytest.approx(1.0, abs=1e-6)
    assert failed.norm_ratio == pytest.approx(1 / 0.22, rel=1e-4)
    assert not failed.passed


@pytest.mark.parametrize("kind", ["attn_out", "mlp_out", "resid_post", "resid_pre", "mlp_in"])
def test_layers_off_by_one_are_refused(tiny: Tiny, kind: str) -> None:
    model = LanguageModel(tiny("llama").hf, LLAMA, name="wrong")
    sites = model._anatomy.sites
    shifted = {f"{kind}.{layer}": sites[f"{kind}.{(layer + 1) % model.n_layers}"] for layer in range(model.n_layers)}
    sites.update(shifted)
    assert measure(model).first_failure() is not None


def test_a_stream_shifted_as_a_whole_is_refused(tiny: Tiny) -> None:
    """All six hookpoints of a layer moved together keep the sum rule; the head and the zeroed branches do not."""
    model = LanguageModel(tiny("llama").hf, LLAMA, name="wrong")
    model.n_layers -= 1  # the last layer is overlooked
    failures = [check.what for check in measure(model).checks if not check.passed]
    assert any("head" in what for what in failures)


def test_batch_row_zero_for_everyone_is_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_row(raw: torch.Tensor, shape: tuple[int, int], name: str) -> torch.Tensor:
        return raw[:1].expand(*shape, raw.shape[-1])

    monkeypatch.setattr("mohole.model.hooks._as_rows", first_row)
    failure = measure(tiny("llama")).first_failure()
    assert failure is not None


def test_a_read_that_is_not_copied_is_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Falcon adds the attention to the MLP's output in place: without a copy, mlp_out would hold both."""
    monkeypatch.setattr("mohole.model.hooks._copied", lambda rows, held_as: rows)
    failure = measure(tiny("falcon")).first_failure()
    assert failure is not None
    assert "mlp_out" in failure.what


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "opt", "do_layer_norm_before": False}, "its blocks do more than add attention and MLP"),
        ({"model_type": "bloom", "apply_residual_connection_post_layernorm": True}, "resid_post.0 fails with error"),
        ({"model_type": "bloom", "pretraining_tp": 2, "slow_but_exact": True}, "did not run"),
        ({"model_type": "mamba"}, "no blocks of attention and MLP"),
        ({"model_type": "bert", "is_decoder": True}, "no blocks of attention and MLP"),
        ({"model_type": "openai-gpt"}, "the openai-gpt family"),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_a_family_that_cannot_be_right_is_refused_with_the_reason(config: dict[str, object], reason: str) -> None:
    small = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
    if config["model_type"] == "bloom":
        small = {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}
    if config["model_type"] == "mamba":
        small = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}
    if config["model_type"] == "openai-gpt":
        small = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4}
    with pytest.raises(ModelError) as caught:
        new_model(config | small, seed=0)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "gpt2", "falcon"])
def test_right_layouts_pass_and_wrong_ones_fail_in_half_precision(tiny: Tiny, name: str, dtype: torch.dtype) -> None:
    hf = tiny(name).hf.to(dtype)
    try:
        assert measure(LanguageModel(hf, FAMILIES[name], name=name)).first_failure() is None
        wrong = {"gemma2": LLAMA, "granite": replace(GRANITE, branch_scale=None)}
        if name in wrong:
            assert measure(LanguageModel(hf, wrong[name], name=name)).first_failure() is not None
    finally:
        hf.float()


def test_an_unlisted_family_needs_its_self_test(config_of: Callable[[str], dict[str, object]]) -> None:
    with pytest.raises(ModelError, match="load it with its self-test"):
        new_model(config_of("smollm3"), seed=0, self_test=False)


def test_a_missing_module_names_itself(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match=r"feed_forward: LlamaDecoderLayer has no such module"):
        LanguageModel(tiny("llama").hf, replace(LLAMA, mlp_out="feed_forward"), name="wrong")
    assert isinstance(tiny("llama")._anatomy.sites["mlp_out.0"], Site)


NO_Z = [
    ("a projection of another kind", "llama", replace(LLAMA, z="mlp.down_proj"), "attn_out.0 fails with error 1 "),
    ("what the heads are made of", "llama", replace(LLAMA, z="self_attn.q_proj"), "attn_out.0 fails with error"),
    (
        "after the projection and its norm",
        "gemma2",
        replace(SANDWICH, z="self_attn.v_proj"),
        "attn_out.0 fails with error",
    ),
    ("a module that is not there", "llama", replace(LLAMA, z="self_attn.dense"), "layer 0 has no self_attn.dense"),
    ("no such place", "gpt2", replace(GPT2, z=None), "no module of it takes the heads' outputs"),
]


@pytest.mark.parametrize(("name", "layout", "reason"), [case[1:] for case in NO_Z], ids=[case[0] for case in NO_Z])
def test_a_model_whose_z_cannot_be_proved_is_kept_without_it(
    tiny: Tiny, name: str, layout: Layout, reason: str
) -> None:
    model = LanguageModel(tiny(name).hf, layout, name="some")
    prove_hookpoints(model)
    assert model.heads is None
    assert not [hookpoint for hookpoint in model.hookpoints() if hookpoint.startswith("z")]
    for hookpoint in ("z.0", "z.0.1", "blocks.0.attn.hook_z"):
        with pytest.raises(
            HookpointError, match=f"the {model.family} family offers no z: .*attn_out.0 is what"
        ) as caught:
            model.read(torch.tensor([[1, 2]]), [hookpoint])
        assert reason in str(caught.value)
    model.read(torch.tensor([[1, 2]]), ["attn_out.0"])
