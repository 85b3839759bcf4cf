"""SAEDashboard on given tokens, for run.py: what its feature pages cost, and what stands on them. The last line printed is JSON.

PYTHON dashboard.py MODEL SAE TOKENS LAYER N_FEATURES FEATURES_AT_ONCE PROMPTS_AT_ONCE OUT

The default feature-centric layout (tables, histograms, logits, sequences) with five intervals instead of ten, which is cheaper
and as many as mohole's. The model's activations are cached on disk before the clock starts to run; what the cache costs is
given beside it. Positions that hold BOS are left out, as mohole leaves them out.
"""

import gzip
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from sae_dashboard.components_config import (
    ActsHistogramConfig,
    Column,
    FeatureTablesConfig,
    LogitsHistogramConfig,
    LogitsTableConfig,
    SequencesConfig,
)
from sae_dashboard.layout import SaeVisLayoutConfig
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import FeatureDataGeneratorFactory, SaeVisRunner
from sae_lens import SAE, HookedSAETransformer
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_llama_weights

N_TOP, N_INTERVALS, N_IN_INTERVAL = 20, 5, 5


def main() -> None:
    torch.set_num_threads(1)
    model_path, sae_path, tokens_path, layer, n_features, at_once, n_prompts, out = sys.argv[1:]
    tokens = torch.from_numpy(np.load(tokens_path)).long()
    model = hooked_llama(model_path, tokens[: int(n_prompts)])
    sae = SAE.load_from_disk(sae_path, device="cpu")
    sae.fold_W_dec_norm = lambda: (
        None
    )  # it refuses for TopK (decoder rows would no longer say which are largest): done without
    hook = f"blocks.{layer}.hook_resid_post"
    with tempfile.TemporaryDirectory() as cache:

        def settings(n: int) -> SaeVisConfig:
            return SaeVisConfig(
                hook_point=hook, features=list(range(n)), minibatch_size_features=int(at_once),
                minibatch_size_tokens=int(n_prompts), ignore_positions=[0], cache_dir=Path(cache),
                feature_centric_layout=layout(),
            )  # fmt: skip

        start = time.process_time()
        with torch.inference_mode():
            generator = FeatureDataGeneratorFactory.create(settings(1), model, sae, tokens)
            for number, batch in enumerate(generator.token_minibatches):
                generator.get_model_acts(number, batch)
        cached = time.process_time() - start
        costs = {}
        for n in (int(n_features) // 2, int(n_features)):
            start = time.process_time()
            found = SaeVisRunner(settings(n)).run(encoder=sae, model=model, tokens=tokens)
            costs[n] = time.process_time() - start
    whole = Path(out).with_suffix(".all.json")
    found.save_json(whole)
    data = whole.read_bytes()
    pages = {number: page(feature) for number, feature in found.feature_data_dict.items()}
    Path(out).write_text(json.dumps(pages))
    print(
        json.dumps(
            {
                "cache_cpu_seconds": cached,
                "cpu_seconds": costs,
                "bytes_per_feature": len(data) / int(n_features),
                "gzip_bytes_per_feature": len(gzip.compress(data, 6)) / int(n_features),
                "versions": ", ".join(
                    f"{name} {version(name)}" for name in ("sae-dashboard", "sae-lens", "transformer-lens", "torch")
                ),
            }
        )
    )


def layout() -> SaeVisLayoutConfig:
    """`SaeVisLayoutConfig.default_feature_centric_layout()` with five intervals."""
    sequences = SequencesConfig(
        stack_mode="stack-none", top_acts_group_size=N_TOP, n_quantiles=N_INTERVALS, quantile_group_size=N_IN_INTERVAL
    )
    return SaeVisLayoutConfig(
        columns=[
            Column(FeatureTablesConfig()),
            Column(ActsHistogramConfig(), LogitsTableConfig(), LogitsHistogramConfig()),
            Column(sequences),
        ],
        height=750,
    )


def page(feature: Any) -> dict[str, Any]:
    """What is compared: of each strongest sequence (sequence, position, activation), and of each interval's."""
    groups = [
        [
            (one.original_index, one.qualifying_token_index, one.feat_acts[len(one.feat_acts) // 2])
            for one in group.seq_data
        ]
        for group in feature.sequence_data.seq_group_data
    ]
    return {
        "top": groups[0],
        "intervals": [group for group in groups[1:]],
        "histogram": sum(feature.acts_histogram_data.bar_heights),
        "promoted": feature.logits_table_data.top_token_ids,
        "together": feature.feature_tables_data.correlated_features_indices,
    }


def hooked_llama(path: str, tokens: torch.Tensor) -> Any:
    """A local Llama for TransformerLens, which knows models by name only. Its logits are compared with Hugging Face's."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    facts = theirs.config
    cfg = HookedTransformerConfig(
        n_layers=facts.num_hidden_layers, d_model=facts.hidden_size, n_ctx=facts.max_position_embeddings,
        d_head=facts.hidden_size // facts.num_attention_heads, n_heads=facts.num_attention_heads,
        n_key_value_heads=facts.num_key_value_heads, d_mlp=facts.intermediate_size, d_vocab=facts.vocab_size,
        act_fn="silu", eps=facts.rms_norm_eps, normalization_type="RMS", positional_embedding_type="rotary",
        rotary_dim=facts.hidden_size // facts.num_attention_heads, rotary_adjacent_pairs=False, final_rms=True,
        gated_mlp=True, original_architecture="LlamaForCausalLM", device="cpu",
    )  # fmt: skip
    model = HookedSAETransformer(cfg)
    state = convert_llama_weights(theirs, cfg)
    model.load_and_process_state_dict(
        model.fill_missing_keys(state), fold_ln=False, center_writing_weights=False, center_unembed=False,
        fold_value_biases=False,
    )  # fmt: skip
    with torch.no_grad():
        apart = (model(tokens) - theirs(tokens).logits).abs().max().item()
    if not apart < 1e-4:
        raise SystemExit(f"{path}: TransformerLens' logits differ from Hugging Face's by {apart:g}")
    print(f"logits differ by {apart:g}", file=sys.stderr)
    return model


if __name__ == "__main__":
    main()
