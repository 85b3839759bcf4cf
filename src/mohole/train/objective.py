"""What is minimised, and its gradient: squared error of the reconstruction, plus AuxK for latents that fell silent.

    loss = mean over rows and dimensions of (x^ - x)^2     +     auxk_weight * |e - e^|^2 / |e - mean(e)|^2

In training units the first term is about 1 for a reconstruction by the mean, whatever the batch. The gradient is written out,
not left to autograd: only kept (row, latent) pairs contribute, so a step costs one product of rows and encoder
(field practice is six to twenty). It is tested against autograd of `kernels.reference`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mohole.kernels import sparse
from mohole.train.weights import Weights


@dataclass(frozen=True)
class Forward:
    """A batch on its way through the autoencoder."""

    centred: Float[Tensor, "row d"]
    """Rows minus b_dec: what the encoder reads."""
    pre: Float[Tensor, "row latent"]
    values: Float[Tensor, "row kept"]
    """Kept activations; zero where a kept pre-activation was not positive."""
    latents: Int[Tensor, "row kept"]
    decoded: Float[Tensor, "row d"]
    """Sum of kept decoder directions, on the graph of `values`."""
    error: Float[Tensor, "row d"]
    """Reconstruction minus rows."""

    def fired(self) -> Bool[Tensor, " latent"]:
        """Which latents were active in at least one row."""
        fired = torch.zeros(self.pre.shape[1], dtype=torch.bool)
        fired[self.latents[self.values > 0]] = True
        return fired


@dataclass(frozen=True)
class Outcome:
    """Losses of a batch, and the gradient of their weighted sum."""

    loss: Float[Tensor, ""]
    aux_loss: Float[Tensor, ""]
    gradients: Weights


def forward(weights: Weights, rows: Float[Tensor, "row d"], k: int, buffer: Float[Tensor, "row latent"]) -> Forward:
    """Encode and decode. `buffer` receives the pre-activations: a fresh one each step costs a quarter more in page faults."""
    centred = rows - weights.b_dec
    pre = torch.addmm(weights.b_enc, centred, weights.W_enc.T, out=buffer)
    values, latents = sparse.top_k(pre, k)
    values = values.clamp_min_(0.0).requires_grad_()
    decoded = sparse.decode(values, latents, weights.W_dec)
    return Forward(centred, pre, values, latents, decoded, decoded.detach() - centred)


def objective(
    weights: Weights, batch: Forward, dead: Int[Tensor, " dead"], *, auxk: int, auxk_weight: float
) -> Outcome:
    """Loss and gradient. `dead` are the latents that AuxK may use; they must be silent in this batch too."""
    n_rows, d_model = batch.error.shape
    loss = _total(batch.error.square()) / (n_rows * d_model)
    error_gradient = batch.error * (2.0 / (n_rows * d_model))
    d_enc, d_bias, d_dec = _pair_gradients(
        weights, batch.centred, batch.decoded, batch.values, batch.latents, error_gradient
    )
    aux_loss = torch.zeros(())
    if len(dead) > 0 and auxk > 0:
        values, latents = sparse.top_k(batch.pre[:, dead], min(auxk, len(dead)))
        values, latents = values.clamp_min_(0.0).requires_grad_(), dead[latents]
        guess = sparse.decode(values, latents, weights.W_dec)
        # The target is the residual x - x^, held fixed: no gradient reaches the living latents through it.
        surprise = guess.detach() + batch.error
        spread = _total((batch.error - batch.error.mean(0)).square())
        aux_loss = _total(surprise.square()) / spread
        if torch.isfinite(aux_loss):
            more = _pair_gradients(
                weights, batch.centred, guess, values, latents, surprise * (2.0 * auxk_weight / spread)
            )
            d_enc, d_bias, d_dec = d_enc + more[0], d_bias + more[1], d_dec + more[2]
        else:  # a perfect reconstruction leaves nothing to explain, 0 / 0; Gao et al. drop the term too
            aux_loss = torch.zeros(())
    # b_dec moves the output, and through the encoder it moves every kept pre-activation the other way.
    d_centre = error_gradient.sum(0) - d_bias @ weights.W_enc
    return Outcome(loss, aux_loss, Weights(d_enc, d_bias, d_dec, d_centre))


def _pair_gradients(
    weights: Weights, centred: Tensor, decoded: Tensor, values: Tensor, latents: Tensor, decoded_gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of W_enc, b_enc and W_dec through `decoded`, the kept pairs' sum of decoder rows."""
    (value_gradient,) = torch.autograd.grad(decoded, values, decoded_gradient)
    value_gradient = value_gradient * (values.detach() > 0)
    pairs = sparse.ByLatent.of(latents, len(weights.b_enc))
    d_bias = torch.bincount(latents.flatten(), weights=value_gradient.flatten(), minlength=len(weights.b_enc))
    return pairs.sum(value_gradient, centred), d_bias, pairs.sum(values.detach(), decoded_gradient)


def _total(squares: Tensor) -> Tensor:
    """Sum in double, rows first: the order, and so the last bit, does not depend on the number of threads."""
    return squares.sum(1).double().sum().float()


class Silence:
    """For how many rows each latent has been silent, counted over all rows of training."""

    def __init__(self, n_latents: int, dead_after_rows: int) -> None:
        self.rows: Int[Tensor, " latent"] = torch.zeros(n_latents, dtype=torch.int64)
        self._dead_after_rows = dead_after_rows

    def update(self, fired: Bool[Tensor, " latent"], n_rows: int) -> None:
        self.rows += n_rows
        self.rows[fired] = 0

    def dead(self) -> Int[Tensor, " dead"]:
        """Latents that have been silent for too long, ascending."""
        return (self.rows >= self._dead_after_rows).nonzero()[:, 0]
