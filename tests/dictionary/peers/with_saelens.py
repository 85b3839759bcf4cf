"""SAELens writes dictionaries for mohole to read (`write PLACE`), or loads those that mohole wrote (`check PLACE`)."""

import json
import sys
from pathlib import Path

D, F, E = 16, 48, 12


def write(place: str) -> None:
    from exchange import fill, leave, some_rows
    from sae_lens import SAE
    from sae_lens.saes.sae import SAEMetadata

    base = {"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu"}
    cases = {
        "standard": {"architecture": "standard"},
        "standard-no-pre-bias": {"architecture": "standard", "apply_b_dec_to_input": False},
        "topk": {"architecture": "topk", "k": 5},
        "topk-rescaled": {"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": True},
        "topk-rescaled-no-pre-bias": {
            "architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": False,
        },
        "jumprelu": {"architecture": "jumprelu"},
        "jumprelu-no-pre-bias": {"architecture": "jumprelu", "apply_b_dec_to_input": False},
        "gated": {"architecture": "gated"},
        "gated-no-pre-bias": {"architecture": "gated", "apply_b_dec_to_input": False},
        "transcoder": {"architecture": "transcoder", "d_out": E, "apply_b_dec_to_input": False},
        "skip": {"architecture": "skip_transcoder", "d_out": E, "apply_b_dec_to_input": False},
        "jumprelu-skip": {"architecture": "jumprelu_skip_transcoder", "d_out": E, "apply_b_dec_to_input": False},
    }  # fmt: skip
    for normalisation in ("layer_norm", "constant_norm_rescale"):
        for name in ("standard", "topk-rescaled", "jumprelu-no-pre-bias", "gated"):
            cases[f"{name}-{normalisation}"] = cases[name] | {"normalize_activations": normalisation}
    rows = some_rows(20, D)
    for seed, (name, config) in enumerate(cases.items()):
        sae = fill(SAE.from_dict(base | config), seed)
        sae.cfg.metadata = SAEMetadata(hook_name="blocks.3.hook_resid_post", hook_name_out="blocks.3.hook_mlp_out")
        if name == "jumprelu":
            sae.threshold.data[::2] *= -1.0  # then a ReLU decides
        folder = Path(place) / name
        sae.save_model(folder)
        # so short that an eps in the wrong place, or one more of them, shows
        given = 0.05 * rows + 0.02 if "norm" in name else rows
        leave(folder, given, sae.encode(given), sae(given))
    folded = fill(SAE.from_dict(base | cases["jumprelu"]), 77)  # as its training does it at the end
    folded.fold_activation_norm_scaling_factor(0.25)
    folded.cfg.metadata = SAEMetadata(hook_name="blocks.3.hook_resid_post")
    folder = Path(place) / "folded"
    folded.save_model(folder)
    leave(folder, rows * 4.0, folded.encode(rows * 4.0), folded(rows * 4.0))
    early = Path(place) / "before-6"  # the config of an early version, which the library still reads
    fill(SAE.from_dict(base | cases["topk"]), 78).save_model(early)
    flat = base | {
        "hook_point": "blocks.3.hook_resid_post",
        "activation_fn_str": "topk",
        "normalize_activations": False,
    }
    (early / "cfg.json").write_text(json.dumps(flat | {"activation_fn_kwargs": {"k": 5}}))
    loaded = SAE.load_from_disk(early)
    leave(early, rows, loaded.encode(rows), loaded(rows))


def check(place: str) -> None:
    from exchange import compare, folders
    from sae_lens import SAE

    for folder in folders(place):
        sae = SAE.load_from_disk(folder)
        compare(folder, lambda rows, sae=sae: (sae.encode(rows), sae(rows)))


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2])
