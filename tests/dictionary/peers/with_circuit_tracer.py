"""circuit-tracer writes transcoders for mohole to read (`write PLACE`), or loads those that mohole wrote (`check PLACE`)."""

import inspect
import sys
from pathlib import Path
from typing import Any

D, F, N = 16, 48, 3


def write(place: str) -> None:
    import torch
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
    from exchange import fill, leave, some_rows

    rows = some_rows(N, 20, D)
    cases: tuple[tuple[str, Any, bool], ...] = (
        ("plt-relu", lambda: torch.nn.functional.relu, False),
        ("plt-jumprelu", lambda: JumpReLU(torch.zeros(F)), False),
        ("plt-skip", lambda: torch.nn.functional.relu, True),
    )
    for seed, (name, activation, skip) in enumerate(cases):
        layers = {
            layer: fill(SingleLayerTranscoder(D, F, activation(), layer, skip, dtype=torch.float32), 10 * seed + layer)
            for layer in range(N)
        }
        folder = Path(place) / name
        made = TranscoderSet(layers, "mlp.hook_in", "hook_mlp_out")
        made.to_safetensors(str(folder))
        _config(folder, "transcoder_set")
        codes = made.encode(rows)
        leave(folder, rows, codes, made.decode(codes, rows))
    for seed, activation in enumerate(("relu", "jump_relu")):
        clt = fill(CrossLayerTranscoder(N, F, D, activation, lazy_decoder=False, dtype=torch.float32), seed)
        folder = Path(place) / f"clt-{activation}"
        clt.to_safetensors(str(folder))
        _config(folder, "cross_layer_transcoder")
        leave(folder, rows, clt.encode(rows), clt(rows))


def check(place: str) -> None:
    import torch
    import yaml
    from circuit_tracer.transcoder.cross_layer_transcoder import load_clt
    from circuit_tracer.transcoder.single_layer_transcoder import load_transcoder_set
    from exchange import compare, folders

    for folder in folders(place):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        hooks = {key: config[key] for key in ("feature_input_hook", "feature_output_hook")}
        assert hooks == {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}, hooks
        if config["model_kind"] == "cross_layer_transcoder":
            clt = load_clt(str(folder), dtype=torch.float32, lazy_decoder=False, **hooks)
            compare(folder, lambda rows, clt=clt: (clt.encode(rows), clt(rows)))
            continue
        topk = {key: config[key] for key in ("activation", "k") if key in config}
        if topk and "activation" not in inspect.signature(load_transcoder_set).parameters:
            continue  # circuit-tracer 0.5.0 takes topk for relu
        paths = {layer: str(folder / f"layer_{layer}.safetensors") for layer in range(N)}
        made = load_transcoder_set(paths, "scan", dtype=torch.float32, **hooks, **topk)
        compare(folder, lambda rows, made=made: (made.encode(rows), made.decode(made.encode(rows), rows)))


def _config(folder: Path, kind: str) -> None:
    hooks = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    (folder / "config.yaml").write_text(f"model_name: some\nmodel_kind: {kind}\n{hooks}scan: null\n")


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2])
