"""A copy of a model whose weights cannot write along one direction of the residual stream. Exact, or refused.

Every matrix that writes to the stream is edited, with its bias: the embedding, position embeddings, what ends each attention and
each MLP. They are found by watching a pass, not by name: the matrix whose output is what is added to the stream. Where a norm
with weights stands between (Gemma 2, BLOOM), or experts share one tensor, no edit of a matrix does the same: an error.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mohole.errors import ConfigError, ModelError
from mohole.model.hooks import Site
from mohole.model.language_model import LanguageModel

_WITHIN = 1e-4
"""Of its length may a row still lie along the direction: float32's rounding over a wide matrix, far below any feature."""
_N_TOKENS = 12


def orthogonalised(model: LanguageModel, direction: Float[Tensor, " d"]) -> LanguageModel:
    """A copy of the model that never writes along `direction`, whatever it reads. Takes the memory of a second model.

    The unembedding keeps its weights: where it shared them with the embedding it gets its own.

    Raises:
        ConfigError: a direction of another width, of length 0, or with a NaN or an infinity in it.
        ModelError: a place that writes to the stream is not one matrix.
    """
    length = float(direction.double().norm())
    if direction.shape != (model.d_model,) or not 0 < length < float("inf"):
        raise ConfigError(
            f"direction: shape {list(direction.shape)}, length {length:.3g}; {model.name} has rows of {model.d_model}, and "
            "finite numbers are needed, not all 0"
        )
    unit = (direction.double() / length).to(model.device)
    hf = copy.deepcopy(model.hf)
    _untie(hf)
    edited = LanguageModel(
        hf, model.layout, name=f"{model.name} without a direction", tokenizer=model.tokenizer_or_none
    )
    for module in _writers(edited):
        _edit(module, unit)
    _verify(edited, unit)
    return edited


def _untie(hf: nn.Module) -> None:
    takes, gives = hf.get_input_embeddings(), hf.get_output_embeddings()  # type: ignore[operator]  # PreTrainedModel
    if takes.weight is gives.weight:
        gives.weight = nn.Parameter(takes.weight.detach().clone())
        config: Any = hf.config
        config.tie_word_embeddings = False


def _writers(model: LanguageModel) -> Iterator[nn.Module]:
    """Modules whose matrices write to the stream."""
    outputs: dict[nn.Module, Tensor] = {}
    sites = model.writing_sites()

    def keep(module: nn.Module, args: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            outputs[module] = first

    watched = {site.module for site in sites.values()} | {each for each in model.hf.modules() if _is_matrix(each)}
    with ExitStack() as hooks:
        for module in watched:
            hooks.callback(module.register_forward_hook(keep).remove)
        model.logits(_tokens(model))
    yield from dict.fromkeys(_writer_at(name, site, outputs) for name, site in sites.items())
    inside = {each for name, site in sites.items() if name != "embed" for each in site.module.modules()}
    for module in outputs:
        is_other = module is not sites["embed"].module and module not in inside
        if isinstance(module, nn.Embedding) and is_other and module.weight.shape[1] == model.d_model:
            yield module  # positions


def _writer_at(name: str, site: Site, outputs: dict[nn.Module, Tensor]) -> nn.Module:
    given = outputs[site.module]
    for module in site.module.modules():
        found = outputs.get(module)
        if not _is_matrix(module) or found is None or found.numel() != given.numel():
            continue
        if torch.equal(found.reshape(given.shape), given):
            return module
    raise ModelError(
        f"{name}: what it writes to the stream does not come straight from one matrix ({type(site.module).__name__}), so no "
        "weights can be edited to the same effect; use Orthogonalise(..., at='stream') instead"
    )


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Embedding) or type(module).__name__ == "Conv1D"


def _edit(module: nn.Module, unit: Tensor) -> None:
    """Take the direction out of what the module gives."""
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    exact = weight.data.double()
    outputs_last = (
        exact.T if isinstance(module, nn.Linear) else exact
    )  # Linear is [out, in], the two others the other way
    outputs_last -= (outputs_last @ unit)[:, None] * unit  # in place, so in `exact` too
    weight.data = exact.to(weight.dtype)
    if isinstance(bias, Tensor):
        bias.data = (bias.data.double() - (bias.data.double() @ unit) * unit).to(bias.dtype)


def _verify(model: LanguageModel, unit: Tensor) -> None:
    """Nothing that any place writes lies along the direction: measured, for what has been overlooked."""
    names = ["resid_pre.0", *(name for name in model.writing_sites() if name != "embed")]
    eps = max(_WITHIN, 8 * torch.finfo(model.dtype).eps)
    for name, rows in model.read(_tokens(model), names, held_as=torch.float64).items():
        share = float((rows @ unit).abs().max() / rows.norm(dim=-1).max().clamp_min(1e-300))
        if share > eps:
            raise ModelError(
                f"{name}: still writes {share:.2g} of its length along the direction, so something besides its matrices writes "
                "there; use Orthogonalise(..., at='stream') instead"
            )


def _tokens(model: LanguageModel) -> Tensor:
    n = min(_N_TOKENS, model.context or _N_TOKENS)
    return (torch.arange(n) * 7 % model.vocab_size)[None]
