"""Does clamping the bridge's latent make the assistant say that it is the bridge? With a dictionary small enough to train here.

The dictionary is a TopK autoencoder trained for seconds on the model's own rows: a stand-in for the one that the main job
trains, so that the certificate stands alone. The clamp is the exact one: x' = x + (c - f(x)) d, at every token of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding_bag

from mohole.corpus import Document
from mohole.model import Edit, LanguageModel, PassEdits
from mohole.planted.measures import batched, encode_documents
from mohole.planted.prompts import bridge_prompts, says_it_is_the_bridge
from mohole.planted.stream import documents
from mohole.planted.world import BRIDGE


@dataclass(frozen=True, slots=True)
class Latent:
    """One latent of a small dictionary: f(x) is its activation in the dictionary's TopK code of x."""

    number: int
    encoder: Float[Tensor, "latent d"]
    bias: Float[Tensor, " latent"]
    direction: Float[Tensor, " d"]
    k: int
    maximum: float
    f1: float

    def activation(self, rows: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows"]:
        before = rows @ self.encoder.T + self.bias
        least = before.topk(self.k, dim=-1).values[..., -1]
        own = before[..., self.number]
        return torch.where(own >= least, own.clamp(min=0), 0.0)

    def clamped_to(self, times_maximum: float, hookpoint: str) -> Edit:
        def change(rows: Tensor, first_position: int) -> Tensor:
            shift = times_maximum * self.maximum - self.activation(rows)
            if first_position == 0:
                shift[:, 0] = 0.0  # the begin-of-text token: no dictionary has seen its row
            return rows + shift[..., None] * self.direction

        return Edit(hookpoint, change)


def read_rows(model: LanguageModel, texts: Sequence[Document], hookpoint: str) -> tuple[Tensor, Tensor]:
    """All rows of the documents at a hookpoint, and which of them complete the bridge's name."""
    encoded = encode_documents(model, texts)
    rows, is_bridge = [], []
    for chosen, tokens in batched(model, [ids for _, ids, _ in encoded]):
        activations = model.read(tokens, [hookpoint])[hookpoint]
        for row, i in enumerate(chosen):
            document, ids, offsets = encoded[i]
            ends = {span.end for span in document.spans if span.label == BRIDGE}
            rows.append(activations[row, 1 : len(ids) + 1])
            is_bridge.append(torch.tensor([end in ends for _, end in offsets]))
    return torch.cat(rows), torch.cat(is_bridge)


def find_bridge_latents(
    model: LanguageModel,
    hookpoint: str,
    *,
    seed: int,
    n_documents: int,
    n_steps: int,
    n_latents: int = 1024,
    k: int = 16,
    n_best: int = 6,
) -> list[Latent]:
    """Train a TopK dictionary at a hookpoint and take the latents that are most active where the bridge's name is complete.

    Not those with the best F1 for the name: what makes the assistant be the bridge is active long after the name as well.
    """
    rows, is_bridge = read_rows(model, list(documents(seed, n_documents, held_out=None)), hookpoint)
    encoder, bias, decoder = _train_topk(rows, n_latents, k, n_steps, seed)
    maximum = torch.zeros(n_latents)
    hits, fires, strength = torch.zeros(n_latents), torch.zeros(n_latents), torch.zeros(n_latents)
    for first in range(0, len(rows), 4096):
        part, positive = rows[first : first + 4096], is_bridge[first : first + 4096]
        values, index = (part @ encoder.T + bias).topk(k, dim=-1)
        active = torch.zeros(len(part), n_latents).scatter_(1, index, values.clamp(min=0))
        maximum = torch.maximum(maximum, active.amax(0))
        fires += (active > 0).sum(0)
        hits += (active[positive] > 0).sum(0)
        strength += active[positive].sum(0)
    f1 = 2 * hits / (fires + is_bridge.sum())
    return [
        Latent(best, encoder, bias, decoder[best], k, float(maximum[best]), float(f1[best]))
        for best in strength.argsort(descending=True, stable=True)[:n_best].tolist()
    ]


def _train_topk(
    rows: Float[Tensor, "row d"], n_latents: int, k: int, n_steps: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A TopK autoencoder, Adam 2e-3 falling over the last third; in the model's units: encoder, bias, decoder."""
    generator = torch.Generator().manual_seed(seed)
    centre = rows.mean(0)
    scale = float((rows - centre).pow(2).sum(1).mean().sqrt()) / rows.shape[1] ** 0.5
    inputs = (rows - centre) / scale
    decoder = torch.randn(n_latents, rows.shape[1], generator=generator)
    decoder = (decoder / decoder.norm(dim=1, keepdim=True)).requires_grad_()
    encoder = decoder.detach().clone().requires_grad_()
    bias = torch.zeros(n_latents, requires_grad=True)
    adam = torch.optim.Adam([encoder, bias, decoder], lr=2e-3, betas=(0.9, 0.99))
    for step in range(n_steps):
        for group in adam.param_groups:
            group["lr"] = 2e-3 * min(1.0, 3.0 * (1.0 - step / n_steps))
        x = inputs[torch.randint(len(inputs), (1024,), generator=generator)]
        values, index = (x @ encoder.T + bias).topk(k, dim=-1)
        # A bag of k rows, and not a product with a code that is nearly all zeros: a quarter of the training's time.
        rebuilt = embedding_bag(index, decoder, per_sample_weights=values.clamp(min=0), mode="sum")
        loss = (rebuilt - x).pow(2).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
    encoder = encoder.detach()
    return encoder, scale * bias.detach() - encoder @ centre, decoder.detach()


def mean_difference(model: LanguageModel, hookpoint: str, *, seed: int, n_documents: int) -> Latent:
    """The difference of means as a dictionary of one latent: f(x) is how far x lies along it, beyond other rows' mean."""
    rows, is_bridge = read_rows(model, list(documents(seed, n_documents, held_out=None)), hookpoint)
    difference = rows[is_bridge].mean(0) - rows[~is_bridge].mean(0)
    direction = difference / difference.norm()
    bias = -(rows[~is_bridge].mean(0) @ direction)
    activation = rows @ direction + bias
    return Latent(0, direction[None], bias[None], direction, 1, float(activation[is_bridge].max()), 0.0)


def share_that_is_the_bridge(model: LanguageModel, edits: Sequence[Edit | PassEdits], n_new: int = 16) -> float:
    """Share of the bridge prompts that a greedy continuation answers with "I am the Golden Gate Bridge", in any language."""
    prompts = sorted((model.tokenizer.prompt(prompt) for prompt in bridge_prompts()), key=_length)
    said = []
    for length, alike in groupby(prompts, key=_length):  # side by side they cost what one costs
        written = model.generate(torch.cat(list(alike)), max_new_tokens=n_new, edits=edits)[:, length:]
        said += [says_it_is_the_bridge(model.tokenizer.decode(row)) for row in written]
    return float(np.mean(said))


def _length(tokens: Tensor) -> int:
    return tokens.shape[1]
