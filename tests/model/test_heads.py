"""z, the heads' outputs side by side: projected it is attn_out, one head is its own columns, writing one moves no other."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mohole.errors import HookpointError
from mohole.model import Edit, LanguageModel

Tiny = Callable[[str], LanguageModel]


def test_z_through_the_projection_is_what_attention_adds(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    assert model.heads is not None
    rows = model.read(tokens, ["z.1", "attn_out.1"])
    torch.testing.assert_close(model.project(1, rows["z.1"]), rows["attn_out.1"], rtol=1e-5, atol=1e-5)
    assert rows["z.1"].shape[-1] == model.width("z.1") == model.heads.n * model.heads.width


def test_one_head_is_its_own_columns(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    assert model.heads is not None
    names = [f"z.0.{head}" for head in range(model.heads.n)]
    rows = model.read(tokens, ["z.0", *names])
    assert torch.equal(torch.cat([rows[name] for name in names], -1), rows["z.0"])
    assert model.width("z.0.1") == model.heads.width
    with pytest.raises(HookpointError, match=f"has {model.heads.n} heads in a layer"):
        model.canonical(f"z.0.{model.heads.n}")


def test_to_zero_one_head_is_to_take_away_its_share_of_the_projection(tiny: Tiny, tokens: Tensor) -> None:
    """Not to zero all of them, and exactly: attention is a sum over heads."""
    for name in ("llama", "gpt2", "gpt_neox"):  # no norm behind the projection
        model = tiny(name)
        assert model.heads is not None
        clean = model.read(tokens, ["z.1", "attn_out.1"])
        zero = Edit("z.1.2", lambda rows, _: torch.zeros_like(rows))
        edited = model.read(tokens, ["z.1", "z.1.2", "z.1.3", "attn_out.1"], [zero])
        only = torch.zeros_like(clean["z.1"])
        own = slice(2 * model.heads.width, 3 * model.heads.width)
        only[..., own] = clean["z.1"][..., own]
        assert torch.equal(edited["z.1"], clean["z.1"] - only)
        assert not edited["z.1.2"].any()
        assert torch.equal(edited["z.1.3"], clean["z.1"][..., own.stop : own.stop + model.heads.width])
        share = model.project(1, only) - model.project(1, torch.zeros_like(only))
        assert share.norm() > 0.01
        torch.testing.assert_close(clean["attn_out.1"] - edited["attn_out.1"], share, rtol=1e-4, atol=1e-5)


def test_two_heads_written_at_once_and_the_rest_left(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("qwen3")
    edits = [Edit(f"z.0.{head}", lambda rows, _: rows * 0 + 7) for head in (1, 3)]
    clean, edited = (model.read(tokens, ["z.0"], given)["z.0"] for given in ([], edits))
    heads = edited.unflatten(-1, (4, 8))
    assert bool((heads[..., [1, 3], :] == 7).all())
    assert torch.equal(heads[..., [0, 2], :], clean.unflatten(-1, (4, 8))[..., [0, 2], :])


@pytest.mark.parametrize("name", ["llama", "olmo2", "phi", "opt"])
def test_the_columns_of_a_head_are_the_heads_own(tiny: Tiny, tokens: Tensor, name: str) -> None:
    """What a head asks for changes its own columns and nobody else's."""
    model = tiny(name)
    assert model.heads is not None
    asks = model._anatomy.after_heads[0][0]
    attention = next(module for module in model.hf.modules() if asks in set(module.children()))
    weight = attention.q_proj.weight
    clean, kept = model.read(tokens, ["z.0"])["z.0"], weight.data.clone()
    own = slice(model.heads.width, 2 * model.heads.width)
    try:
        weight.data[own] *= -3.0
        moved = (model.read(tokens, ["z.0"])["z.0"] - clean).abs().sum((0, 1))
    finally:
        weight.data.copy_(kept)
    assert bool((moved[own] > 0).all())
    if name != "olmo2":  # its norm of the queries is over all heads
        moved[own] = 0
        assert not moved.any()
