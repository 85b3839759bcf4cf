"""SAELens' evals on given tokens, for run.py: everything but the weights' own numbers. The last line printed is JSON.

PYTHON peer.py MODEL SAE TOKENS HOOK PROMPTS_AT_ONCE
"""

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from sae_lens import SAE
from sae_lens.evals import EvalConfig, run_evals
from sae_lens.load_model import load_model
from sae_lens.training.activation_scaler import ActivationScaler


class Tokens:
    """What run_evals asks of an activation store, over tokens that are there already."""

    def __init__(self, tokens: torch.Tensor, n_prompts: int) -> None:
        self.tokens, self.store_batch_size_prompts, self.context_size = tokens, n_prompts, tokens.shape[1]
        self.next = 0

    def get_batch_tokens(self, n_prompts: int) -> torch.Tensor:
        self.next += n_prompts
        return self.tokens[self.next - n_prompts : self.next]

    def reset_input_dataset(self) -> None:
        self.next = 0


def main() -> None:
    torch.set_num_threads(1)
    model_path, sae_path, tokens_path, hook, n_prompts = sys.argv[1:]
    model = load_model("AutoModelForCausalLM", model_path, device="cpu", hook_names=[hook])
    sae = SAE.load_from_disk(sae_path, device="cpu")
    sae.cfg.metadata.hook_name = hook
    tokens = torch.from_numpy(np.load(tokens_path))
    once = int(n_prompts)
    _cost(sae, model, tokens[:once], once)  # warms up
    cost, found, by_latent = _cost(sae, model, tokens, once)
    metrics = {name: value for group in found.values() for name, value in group.items()}
    metrics["dead"] = sum(density == 0 for density in by_latent["feature_density"])
    versions = f"sae-lens {version('sae-lens')}, torch {torch.__version__}"
    print(json.dumps({"cpu_seconds": cost, "versions": versions, "metrics": metrics}))


def _cost(sae: Any, model: Any, tokens: torch.Tensor, n_prompts: int) -> tuple[float, Any, Any]:
    """CPU-seconds, and what run_evals returns."""
    n_batches = -(-len(tokens) // n_prompts)
    wanted = EvalConfig(
        batch_size_prompts=n_prompts, n_eval_reconstruction_batches=n_batches, compute_kl=True, compute_ce_loss=True,
        n_eval_sparsity_variance_batches=n_batches, compute_l2_norms=True, compute_sparsity_metrics=True,
        compute_variance_metrics=True, compute_featurewise_density_statistics=True,
    )  # fmt: skip
    store = Tokens(tokens, n_prompts)
    start = time.process_time()
    found, by_latent = run_evals(sae, store, model, ActivationScaler(), wanted, exclude_special_tokens=[1])
    return time.process_time() - start, found, by_latent


if __name__ == "__main__":
    main()
