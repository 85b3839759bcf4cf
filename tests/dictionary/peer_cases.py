"""Random dictionaries of every kind, with biases as large as weights, so that a wrong convention cannot hide."""

from collections.abc import Callable

import torch

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.dictionary import Crosscoder, CrossLayerTranscoder, Latents, SparseAutoencoder, Transcoder
from mohole.dictionary.latents import needed

D, F = 16, 48


def some_rows(seed: int = 99, columns: int = D) -> torch.Tensor:
    return torch.randn(20, columns, generator=torch.Generator().manual_seed(seed))


def some_latents(nonlinearity: Nonlinearity, seed: int = 0, d_in: int = D, d_out: int = D) -> Latents:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return 0.5 * torch.randn(*shape, generator=generator)

    tensors = {"W_enc": draw(F, d_in), "b_enc": draw(F), "W_dec": draw(F, d_out)}
    optional = {name: draw(F).abs() + 0.1 if name == "threshold" else draw(F) for name in needed(nonlinearity)}
    return Latents(nonlinearity, **tensors, **optional)


def some_sae(
    nonlinearity: Nonlinearity, seed: int = 0, *, unit: bool = False, one_threshold: bool = False
) -> SparseAutoencoder:
    own = some_latents(nonlinearity, seed)
    W_dec = own.W_dec / own.W_dec.norm(dim=1, keepdim=True) if unit else own.W_dec
    threshold = torch.full((F,), 0.7) if one_threshold else own.threshold
    b_dec = torch.randn(D, generator=torch.Generator().manual_seed(seed + 1000))
    return SparseAutoencoder(
        "resid_post.3", nonlinearity, own.W_enc, own.b_enc, W_dec, b_dec, threshold, own.b_mag, own.r_mag
    )


def some_transcoder(nonlinearity: Nonlinearity, *, skip: bool = False, layer: int = 3) -> Transcoder:
    generator = torch.Generator().manual_seed(layer + 2000)
    b_dec, W_skip = torch.randn(D, generator=generator), torch.randn(D, D, generator=generator)
    own = some_latents(nonlinearity, layer)
    return Transcoder(f"mlp_in.{layer}", f"mlp_out.{layer}", own, b_dec, W_skip if skip else None)


def some_clt(nonlinearity: Nonlinearity, n_layers: int = 3) -> CrossLayerTranscoder:
    layers = tuple(some_latents(nonlinearity, layer, d_out=(n_layers - layer) * D) for layer in range(n_layers))
    b_dec = torch.randn(n_layers, D, generator=torch.Generator().manual_seed(3000))
    ends = [tuple(f"{kind}.{layer}" for layer in range(n_layers)) for kind in ("mlp_in", "mlp_out")]
    return CrossLayerTranscoder(ends[0], ends[1], layers, b_dec)


def some_crosscoder(nonlinearity: Nonlinearity) -> Crosscoder:
    own = some_latents(nonlinearity, 5, 2 * D, 2 * D)
    b_dec = torch.randn(2 * D, generator=torch.Generator().manual_seed(4000))
    return Crosscoder(("resid_post.1", "resid_post.2"), (D, D), own, b_dec)


SOME_SAES: dict[str, Callable[[], SparseAutoencoder]] = {
    "topk": lambda: some_sae(TopK(k=5)),
    "relu": lambda: some_sae(ReLU()),
    "relu-unit": lambda: some_sae(ReLU(), unit=True),
    "jumprelu": lambda: some_sae(JumpReLU()),
    "gated": lambda: some_sae(Gated()),
    "batchtopk": lambda: some_sae(BatchTopK(k=5)),
    "batchtopk-one-threshold": lambda: some_sae(BatchTopK(k=5), one_threshold=True),
}
