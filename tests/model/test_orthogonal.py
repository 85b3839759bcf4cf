"""Weights freed of a direction: what the model computes is what projecting it out of every writer computes."""

from collections.abc import Callable

import pytest
import torch

from mohole.errors import ConfigError, ModelError
from mohole.model import Edit, LanguageModel, orthogonalised

DIRECTION = torch.randn(32, generator=torch.Generator().manual_seed(3)) * 5
TOKENS = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(4))


def projected_out(model: LanguageModel) -> torch.Tensor:
    unit = (DIRECTION / DIRECTION.norm()).to(model.dtype)
    change = lambda rows, first: rows - (rows @ unit)[..., None] * unit  # noqa: E731
    names = [f"{kind}.{layer}" for layer in range(model.n_layers) for kind in ("attn_out", "mlp_out")]
    return model.logits(TOKENS, [Edit(name, change) for name in ("resid_pre.0", *names)])


# tied embeddings, positions and biases; positions that are offset; scaled embeddings; multipliers; parallel branches; Conv1D
@pytest.mark.parametrize("name", ["gpt2", "opt", "opt_projected", "gemma", "granite", "gpt_neox", "llama"])
def test_edited_weights_compute_what_hooks_do(tiny: Callable[[str], LanguageModel], name: str) -> None:
    model = tiny(name)
    before = model.logits(TOKENS)
    edited = orthogonalised(model, DIRECTION)
    torch.testing.assert_close(edited.logits(TOKENS), projected_out(model), rtol=1e-4, atol=1e-6)
    assert torch.equal(model.logits(TOKENS), before)  # the model itself is as it was
    assert not torch.allclose(edited.logits(TOKENS), before, atol=1e-3)
    unit = DIRECTION / DIRECTION.norm()
    last = edited.read(TOKENS, [f"resid_post.{model.n_layers - 1}"])[f"resid_post.{model.n_layers - 1}"]
    assert float((last @ unit).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("name", "place"),
    [("gemma2", "attn_out.0"), ("bloom", "embed"), ("mixtral", "mlp_out.0"), ("xglm", "resid_pre.0")],
)
def test_what_no_matrix_can_do_is_refused(tiny: Callable[[str], LanguageModel], name: str, place: str) -> None:
    """A norm with weights behind the matrix, experts in one tensor, positions that are computed."""
    with pytest.raises(ModelError, match=rf"{place}: .*Orthogonalise"):
        orthogonalised(tiny(name), DIRECTION)


@pytest.mark.parametrize("wrong", [torch.zeros(32), torch.ones(31), torch.full((32,), float("nan")), torch.ones(1, 32)])
def test_a_direction_that_is_none_is_refused(tiny: Callable[[str], LanguageModel], wrong: torch.Tensor) -> None:
    with pytest.raises((ConfigError, TypeError), match="direction"):
        orthogonalised(tiny("llama"), wrong)
