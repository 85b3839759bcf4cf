"""A plain forward hook and repeng, in an interpreter of their own: `PYTHON peer.py MODEL_FOLDER ROUNDS`. Prints JSON."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent))
from passes import tokens_per_second

LAYER = 1


def main() -> None:
    folder, rounds = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    shift = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(0)) * 0.1

    handles: list[Any] = []

    def bare(tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        while handles:
            handles.pop().remove()
        return passed(tokens, cache)

    def passed(tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        first = 0 if cache is None else cache.get_seq_length()
        places = torch.arange(first, first + tokens.shape[1]).expand(len(tokens), -1)  # repeng needs them for every row
        output = model(input_ids=tokens, position_ids=places, past_key_values=cache, use_cache=True)
        return output.logits[:, -1], output.past_key_values

    def hook(module: Any, given: Any, output: Any) -> Any:
        return output + shift if isinstance(output, torch.Tensor) else (output[0] + shift, *output[1:])

    def hooked(tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        if not handles:  # once in a round: it stays until the next bare pass
            handles.append(model.model.layers[LAYER].register_forward_hook(hook))
        return passed(tokens, cache)

    found: dict[str, object] = {
        "transformers": version("transformers"),
        **tokens_per_second({"bare": bare, "plain hook": hooked}, rounds),
    }
    found |= _repeng(model, shift, bare, rounds)
    print(json.dumps(found))


def _repeng(model: Any, shift: torch.Tensor, bare: Any, rounds: int) -> dict[str, object]:
    """Its wrapper takes the model's layers apart, so it comes last; `bare` then runs through it with nothing set."""
    try:
        from repeng import ControlModel
    except ImportError as error:
        return {"repeng": f"not measured: {error}"}
    wrapped = ControlModel(model, [LAYER])

    def controlled(tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        wrapped.set_raw_control({LAYER: shift})
        return bare(tokens, cache)

    def reset(tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        wrapped.reset()
        return bare(tokens, cache)

    measured = tokens_per_second({"wrapped, nothing set": reset, "controlled": controlled}, rounds)
    return {"repeng": {"version": version("repeng"), **measured}}


if __name__ == "__main__":
    main()
