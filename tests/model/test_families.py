"""Every family: what is read is what the model computes, what is written is what it computes with, and nothing else changes."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mohole.model import Edit, EditTally, LanguageModel
from mohole.model.families import FAMILIES
from mohole.model.self_test import measure

Tiny = Callable[[str], LanguageModel]


@dataclass(frozen=True)
class Add:
    """Adds a fixed vector to the rows at text positions `first` and later."""

    vector: Tensor
    first: int = 0

    def __call__(self, rows: Tensor, first_position: int) -> Tensor:
        position = first_position + torch.arange(rows.shape[1])
        return rows + (position >= self.first)[:, None] * self.vector


def direction(model: LanguageModel, size: float = 1.0) -> Tensor:
    return size * torch.randn(model.d_model, generator=torch.Generator().manual_seed(5))


def test_the_self_test_passes(tiny: Tiny, family: str) -> None:
    measured = measure(tiny(family))
    assert measured.first_failure() is None
    assert len(measured.checks) == 5 * tiny(family).n_layers + 2


def test_at_least_fifteen_families_are_in_the_table() -> None:
    assert len(FAMILIES) >= 15


def test_the_stream_is_what_transformers_calls_hidden_states(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    with torch.no_grad():
        output = model.hf(input_ids=tokens, output_hidden_states=True, use_cache=False)
    rows = model.read(tokens, model.hookpoints())
    for layer in range(model.n_layers):
        assert torch.equal(rows[f"resid_pre.{layer}"], output.hidden_states[layer])
    last = rows[f"resid_post.{model.n_layers - 1}"]
    torch.testing.assert_close(model.unembed(last), output.logits, rtol=1e-5, atol=1e-5)
    # transformers' last hidden state is after the final norm: never the stream itself, unless there is no norm
    if family != "opt_no_final_norm":
        assert output.hidden_states[-1].shape != last.shape or not torch.allclose(output.hidden_states[-1], last)
    torch.testing.assert_close(model.logits(tokens), output.logits, rtol=0, atol=0)


def test_reading_less_stops_earlier_and_gives_the_same(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    everything = model.read(tokens, model.hookpoints())
    ran: list[int] = []
    blocks = [model._anatomy.sites[f"resid_post.{layer}"].module for layer in range(model.n_layers)]
    watchers = [block.register_forward_pre_hook(lambda *_, at=at: ran.append(at)) for at, block in enumerate(blocks)]
    try:
        for name in ("embed", "resid_pre.0", "attn_out.0", "resid_post.0", "mlp_out.1"):
            ran.clear()
            assert torch.equal(model.read(tokens, [name])[name], everything[name])
            last = {"embed": -1, "mlp_out.1": 1}.get(name, 0)
            assert ran == list(range(last + 1))
    finally:
        for watcher in watchers:
            watcher.remove()


def test_rows_do_not_depend_on_what_stands_right_or_beside(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    names = ["attn_out.1", "mlp_out.1", "resid_post.1"]
    alone = model.read(tokens[:1, :4], names)
    padded = tokens.clone()
    padded[0, 4:] = 0  # the padding token of most of these configs
    together = model.read(padded, names)
    for name in names:
        torch.testing.assert_close(together[name][:1, :4], alone[name], rtol=2e-5, atol=2e-5)


def test_an_edit_that_changes_nothing_changes_no_bit(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    edits = [Edit(name, lambda rows, _: rows * 1.0) for name in model.hookpoints()]
    tally = EditTally()
    assert torch.equal(model.logits(tokens, edits, tally=tally), model.logits(tokens))
    assert tally.complete
    assert tally.n_edited == [tokens.numel()] * len(edits)


def test_the_last_stream_decides_the_logits(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    zero = Edit(f"resid_post.{model.n_layers - 1}", lambda rows, _: torch.zeros_like(rows))
    expected = model.unembed(torch.zeros(2, 9, model.d_model))
    torch.testing.assert_close(model.logits(tokens, [zero]), expected, rtol=1e-6, atol=1e-6)


def test_an_edit_reaches_what_comes_after_and_nothing_else(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    add = direction(model)
    clean = model.read(tokens, model.hookpoints())
    edited = model.read(tokens, model.hookpoints(), [Edit("mlp_out.1", Add(add, first=5))])
    for name in model.hookpoints()[: model.hookpoints().index("mlp_out.1")]:
        assert torch.equal(edited[name], clean[name])
    torch.testing.assert_close(edited["resid_post.1"][:, 5:], clean["resid_post.1"][:, 5:] + add, rtol=1e-5, atol=1e-5)
    last = f"resid_post.{model.n_layers - 1}"
    torch.testing.assert_close(edited[last][:, :5], clean[last][:, :5], rtol=1e-5, atol=1e-5)  # experts round by group
    assert (edited[last][:, 5:] - clean[last][:, 5:]).norm() > 0.1


def test_leaving_a_layer_and_entering_the_next_is_one_place(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    add = Add(direction(model))
    leaving, entering = (model.logits(tokens, [Edit(name, add)]) for name in ("resid_post.0", "resid_pre.1"))
    assert torch.equal(leaving, entering)


def test_the_cache_changes_no_text(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    edits = [Edit("resid_post.0", Add(direction(model, 2.0), first=3)), Edit("attn_out.1", lambda rows, _: rows * 1.5)]
    texts, tallies = [], []
    for use_cache in (True, False):
        tallies.append(EditTally())
        texts.append(model.generate(tokens, max_new_tokens=5, edits=edits, use_cache=use_cache, tally=tallies[-1]))
    assert torch.equal(texts[0], texts[1])
    assert torch.equal(texts[0][:, :9], tokens)
    assert all(tally.complete for tally in tallies)
    assert tallies[0].n_rows == 2 * (9 + 4)  # each position once
    assert tallies[1].n_rows == 2 * sum(range(9, 14))
    assert not torch.equal(model.logits(tokens, edits), model.logits(tokens))


def rms_norm(rows: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    return rows / (rows.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def layer_norm(rows: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    centred = rows - rows.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def gated(rows: Tensor, block: torch.nn.Module, act: Callable[[Tensor], Tensor]) -> Tensor:
    mlp = block.mlp
    return (act(rows @ mlp.gate_proj.weight.T) * (rows @ mlp.up_proj.weight.T)) @ mlp.down_proj.weight.T


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def mlp_by_hand(family: str, block: torch.nn.Module, mid: Tensor) -> tuple[Tensor, Tensor]:
    """(mlp_in, mlp_out) from the weights and the stream between attention and MLP, written from the papers."""
    if family in ("llama", "granite"):
        inside = rms_norm(mid, block.post_attention_layernorm.weight)
        return inside, gated(inside, block, silu) * (0.22 if family == "granite" else 1.0)
    if family == "gemma2":
        inside = rms_norm(mid, 1 + block.pre_feedforward_layernorm.weight)
        return inside, rms_norm(gated(inside, block, gelu_tanh), 1 + block.post_feedforward_layernorm.weight)
    if family == "olmo2":
        return mid, rms_norm(gated(mid, block, silu), block.post_feedforward_layernorm.weight)
    if family == "gpt2":
        inside = layer_norm(mid, block.ln_2.weight, block.ln_2.bias)
        hidden = gelu_tanh(inside @ block.mlp.c_fc.weight + block.mlp.c_fc.bias)
        return inside, hidden @ block.mlp.c_proj.weight + block.mlp.c_proj.bias
    if family == "opt":
        inside = layer_norm(mid, block.final_layer_norm.weight, block.final_layer_norm.bias)
        return inside, torch.relu(inside @ block.fc1.weight.T + block.fc1.bias) @ block.fc2.weight.T + block.fc2.bias
    assert family == "bloom"
    norm, mlp = block.post_attention_layernorm, block.mlp
    inside = layer_norm(mid, norm.weight, norm.bias)
    hidden = gelu_tanh(inside @ mlp.dense_h_to_4h.weight.T + mlp.dense_h_to_4h.bias)
    return inside, hidden @ mlp.dense_4h_to_h.weight.T + mlp.dense_4h_to_h.bias


@pytest.mark.parametrize("name", ["llama", "granite", "gemma2", "olmo2", "gpt2", "opt", "bloom"])
def test_the_mlp_recomputed_by_hand(tiny: Tiny, name: str, tokens: Tensor) -> None:
    model = tiny(name)
    rows = model.read(tokens, model.hookpoints())
    for layer in range(model.n_layers):
        block = model._anatomy.sites[f"resid_post.{layer}"].module
        with torch.no_grad():
            mlp_in, mlp_out = mlp_by_hand(name, block, rows[f"resid_pre.{layer}"] + rows[f"attn_out.{layer}"])
        torch.testing.assert_close(rows[f"mlp_in.{layer}"], mlp_in, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rows[f"mlp_out.{layer}"], mlp_out, rtol=1e-4, atol=1e-4)


def test_gpt2_attention_recomputed_by_hand(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("gpt2")
    rows = model.read(tokens, ["resid_pre.1", "attn_out.1"])
    block = model.hf.transformer.h[1]
    with torch.no_grad():
        inside = layer_norm(rows["resid_pre.1"], block.ln_1.weight, block.ln_1.bias)
        joint = inside @ block.attn.c_attn.weight + block.attn.c_attn.bias
        query, key, value = (part.reshape(2, 9, 4, 8).transpose(1, 2) for part in joint.split(32, dim=-1))
        scores = (query @ key.transpose(-1, -2)) / 8**0.5
        scores = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(2, 9, 32)
        expected = mixed @ block.attn.c_proj.weight + block.attn.c_proj.bias
    torch.testing.assert_close(rows["attn_out.1"], expected, rtol=1e-4, atol=1e-4)


def test_a_model_with_neither_positions_nor_embedding_norm_starts_from_its_embedding(
    tiny: Tiny, tokens: Tensor
) -> None:
    for name in ("llama", "granite", "gemma2", "falcon", "gptj"):  # granite and gemma multiply it
        rows = tiny(name).read(tokens, ["embed", "resid_pre.0"])
        assert torch.equal(rows["embed"], rows["resid_pre.0"])


def test_transformer_lens_names_read_the_same_rows(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("gpt2")
    rows = model.read(tokens, ["blocks.1.hook_resid_post", "resid_post.1", "hook_embed"])
    assert list(rows) == ["blocks.1.hook_resid_post", "resid_post.1", "hook_embed"]
    assert torch.equal(rows["blocks.1.hook_resid_post"], rows["resid_post.1"])
    edit = [Edit("blocks.1.hook_resid_post", lambda rows, _: 0 * rows)]
    assert torch.equal(model.read(tokens, ["resid_pre.2"], edit)["resid_pre.2"], torch.zeros(2, 9, 32))
