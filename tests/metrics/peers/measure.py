"""Asks one library for its numbers about the tensors that were left in a folder: `measure.py LIBRARY FOLDER`. No mohole here."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file

PROMPTS, CONTEXT = 8, 16
"""Of a batch: SAELens counts prompts."""


def saelens(given: dict[str, torch.Tensor], folder: Path) -> dict[str, Any]:
    from sae_lens.evals import get_featurewise_weight_based_metrics, get_sparsity_and_variance_metrics
    from sae_lens.synthetic.evals import mean_correlation_coefficient
    from sae_lens.training.activation_scaler import ActivationScaler

    name = "blocks.0.hook_resid_post"
    batches = [
        {
            key: given[key][first : first + PROMPTS * CONTEXT].unflatten(0, (PROMPTS, CONTEXT))
            for key in ("rows", "codes", "out")
        }
        for first in range(0, len(given["rows"]), PROMPTS * CONTEXT)
    ]
    state = {"batch": -1}

    def next_tokens(_: int) -> torch.Tensor:
        state["batch"] += 1
        return torch.ones(PROMPTS, CONTEXT, dtype=torch.int64)

    sae: Any = SimpleNamespace(
        cfg=SimpleNamespace(
            metadata=SimpleNamespace(hook_name=name, hook_head_index=None), d_sae=given["codes"].shape[1]
        ),
        device="cpu",
        encode=lambda _: batches[state["batch"]]["codes"],
        decode=lambda _: batches[state["batch"]]["out"],
        W_enc=given["encoder"].T,
        W_dec=given["decoder"],
    )
    model: Any = SimpleNamespace(run_with_cache=lambda *_, **__: (None, {name: batches[state["batch"]]["rows"]}))
    store: Any = SimpleNamespace(get_batch_tokens=next_tokens)
    metrics, by_latent = get_sparsity_and_variance_metrics(
        sae, model, store, ActivationScaler(), len(batches), True, True, True, True, PROMPTS, {}
    )
    weights = get_featurewise_weight_based_metrics(sae)
    match = {
        "mcc": mean_correlation_coefficient(given["decoder"], given["other"]),
        "mcc_flipped": mean_correlation_coefficient(given["decoder"], -given["decoder"]),
    }
    return metrics | by_latent | weights | match


def dictionary_learning(given: dict[str, torch.Tensor], folder: Path) -> dict[str, Any]:
    from dictionary_learning.evaluation import evaluate

    class Replay:
        dict_size, activation_dim = given["codes"].shape[1], given["rows"].shape[1]

        def __call__(self, rows: torch.Tensor, output_features: bool) -> tuple[torch.Tensor, torch.Tensor]:
            here = self.start
            self.start += len(rows)
            return given["out"][here : self.start], given["codes"][here : self.start]

        start = 0

    found = {"whole": dict(evaluate(Replay(), iter([given["rows"]])))}
    batches = iter(given["rows"].split(8))
    found["batches of 8"] = dict(evaluate(Replay(), batches, n_batches=len(given["rows"]) // 8))
    return found


def sparsify(given: dict[str, torch.Tensor], folder: Path) -> dict[str, Any]:
    from sparsify import SparseCoder
    from sparsify.config import SparseCoderConfig

    torch.manual_seed(0)
    coder = SparseCoder(given["rows"].shape[1], SparseCoderConfig(num_latents=32, k=4))
    with torch.no_grad():
        whole = coder(given["rows"])
        small = [coder(part).fvu.item() for part in given["rows"].split(8)]
    save_file({"out": whole.sae_out.contiguous()}, folder / "sparsify.safetensors")
    return {"fvu": whole.fvu.item(), "fvu of batches of 8": sum(small) / len(small)}


if __name__ == "__main__":
    library, place = sys.argv[1], Path(sys.argv[2])
    found = globals()[library](load_file(place / "given.safetensors"), place)
    (place / f"{library}.json").write_text(json.dumps(found))
