"""dictionary_learning writes dictionaries for mohole to read (`write PLACE`), or loads those mohole wrote (`check PLACE`)."""

import json
import sys
from pathlib import Path
from typing import Any

D, F, K = 16, 48, 5


def write(place: str) -> None:
    import torch
    from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK
    from dictionary_learning.utils import load_dictionary
    from exchange import fill, leave, some_rows

    made: dict[str, Any] = {
        "AutoEncoder": AutoEncoder(D, F),
        "AutoEncoderNew": AutoEncoderNew(D, F),
        "GatedAutoEncoder": GatedAutoEncoder(D, F),
        "JumpReluAutoEncoder": JumpReluAutoEncoder(D, F),
        "AutoEncoderTopK": AutoEncoderTopK(D, F, K),
        "BatchTopKSAE": BatchTopKSAE(D, F, K),
        "MatryoshkaBatchTopKSAE": MatryoshkaBatchTopKSAE(D, F, K, [16, 32]),
    }
    rows = some_rows(20, D)
    for seed, (name, autoencoder) in enumerate(made.items()):
        fill(autoencoder, seed)
        if hasattr(autoencoder, "threshold") and name != "JumpReluAutoEncoder":
            autoencoder.threshold.fill_(1.2)
        trainer = {"dict_class": name, "k": K, "layer": 3, "submodule_name": "resid_post_layer_3", "activation_dim": D}
        if name in ("BatchTopKSAE", "JumpReluAutoEncoder"):  # as its training does it for normalised rows
            autoencoder.scale_biases(3.0)
            trainer["norm_factor"] = 3.0
        folder = Path(place) / name
        folder.mkdir()
        torch.save(autoencoder.state_dict(), folder / "ae.pt")
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
        loaded, _ = load_dictionary(str(folder), device="cpu")
        leave(folder, rows * 3.0, loaded.encode(rows * 3.0), loaded(rows * 3.0))


def check(place: str) -> None:
    from dictionary_learning.utils import load_dictionary
    from exchange import compare, folders

    for folder in folders(place):
        loaded, _ = load_dictionary(str(folder), device="cpu")
        compare(folder, lambda rows, loaded=loaded: (loaded.encode(rows), loaded(rows)))


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2])
