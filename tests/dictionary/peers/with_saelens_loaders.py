"""SAELens's own loaders of other people's releases, given local files, compute what mohole left beside them (`check PLACE`)."""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

LOADERS = {
    "gemma-scope-2b-pt-res": "gemma_2_sae_huggingface_loader",
    "gemma-scope-2b-pt-transcoders": "gemma_2_transcoder_huggingface_loader",
    "gemma-scope-2-1b-pt": "gemma_3_sae_huggingface_loader",
    "Llama3_1-8B-Base-LXR-8x": "llama_scope_sae_huggingface_loader",
    "Llama-Scope-R1-Distill": "llama_scope_r1_distill_sae_huggingface_loader",
    "Llama-3.1-8B-Instruct-SAE-l19": "get_goodfire_huggingface_loader",
    "SAE-Res-Qwen3-1.7B-Base-W1K-L0_5": "qwen_scope_sae_huggingface_loader",
}


def check(place: str) -> None:
    from exchange import compare
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from safetensors import safe_open

    def local(repo_id: str, filename: str, subfolder: str | None = None, **_: Any) -> str:
        return str(Path(place, repo_id.removeprefix("Goodfire/"), subfolder or "", filename))

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(Path(place, repo_id, filename), framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118

    with (
        patch.object(loaders, "hf_hub_download", local),
        patch.object(loaders, "get_safetensors_tensor_shapes", shapes),
    ):
        checked = 0
        for left in sorted(Path(place).rglob("expected.safetensors")):
            repository = left.relative_to(place).parts[0]
            inner = left.parent.relative_to(Path(place, repository)).as_posix()
            inner = next((path.name for path in left.parent.glob("*.pt*")), inner)
            sae = _loaded(getattr(loaders, LOADERS[repository]), repository, inner)
            compare(left.parent, lambda rows, sae=sae: (sae.encode(rows), sae(rows)))
            checked += 1
    assert checked == len(LOADERS) + 1, f"{checked} compared"


def _loaded(loader: Any, repository: str, inner: str) -> Any:
    """As SAE.from_pretrained puts one together; its list of scales is replaced by the number in the files."""
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    repository = f"Goodfire/{repository}" if "goodfire" in loader.__name__ else repository
    config, state, _ = loader(repository, inner, device="cpu", cfg_overrides={"dtype": "float32", "device": "cpu"})
    config = handle_config_defaulting(config)
    config["d_in"], config["d_sae"] = state["W_enc"].shape
    if "d_out" in config:
        config["d_out"] = state["W_dec"].shape[1]
    sae = SAE.from_dict(config)
    sae.load_state_dict(state)
    if config["normalize_activations"] == "expected_average_only_in":
        sae.fold_activation_norm_scaling_factor(config["d_in"] ** 0.5 / 2.5)  # the mean length that the files say
    return sae


if __name__ == "__main__":
    check(sys.argv[2])
