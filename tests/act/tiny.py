"""A tiny random Llama with a word tokenizer, and dictionaries whose codes are known by hand. Data only; no tests."""

from functools import cache

import pytest
import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from mohole.config import TopK
from mohole.dictionary import SparseAutoencoder
from mohole.model import LanguageModel, Tokenizer, new_model
from mohole.model.load import new_tokenizer

D_MODEL, N_LATENTS, VOCAB = 32, 40, 96
HOOKPOINT = "resid_post.1"


def tiny_tokenizer() -> Tokenizer:
    words = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(VOCAB - 3))]
    backend = RawTokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    return new_tokenizer(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def tiny_model() -> LanguageModel:
    sizes = {"hidden_size": D_MODEL, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    special = {"bos_token_id": 1, "eos_token_id": 2}
    config = {
        "model_type": "llama",
        **sizes,
        "intermediate_size": 48,
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
    }
    return new_model(config | special | {"initializer_range": 0.3}, seed=3, tokenizer=tiny_tokenizer(), name="tiny")


def random_sae(hookpoint: str = HOOKPOINT, *, k: int = 6, seed: int = 0) -> SparseAutoencoder:
    """A dictionary that explains little: what it does not explain is large, so losing it would show."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(N_LATENTS, D_MODEL, generator=draw), dim=1)
    b_dec = torch.randn(D_MODEL, generator=draw)
    return SparseAutoencoder(hookpoint, TopK(k=k), directions.clone(), torch.zeros(N_LATENTS), directions, b_dec)


def constant_sae(value: float) -> SparseAutoencoder:
    """Latent 0 reads `value` at every row, latent 1 is never active; the others are random."""
    sae = random_sae()
    W_enc, b_enc = sae.W_enc.clone(), sae.b_enc.clone()
    W_enc[0], b_enc[0] = 0.0, value
    W_enc[1], b_enc[1] = 0.0, -1.0
    return SparseAutoencoder(sae.hookpoint, TopK(k=N_LATENTS), W_enc, b_enc, sae.W_dec, sae.b_dec)


def prompt(*, batch: int = 1, length: int = 7) -> torch.Tensor:
    return torch.randint(3, VOCAB, (batch, length), generator=torch.Generator().manual_seed(5))


def leave_taps_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks run as they were written, whatever stands on them: as a compiled graph that was made before."""
    block = type(tiny_model().hf.model.layers[0])  # type: ignore[union-attr, index]
    monkeypatch.setattr(block, "__call__", lambda self, *args, **options: block.forward(self, *args, **options))
