"""The planted world's tokenizer: byte-level BPE; digits, Chinese characters and marks are single pieces. No model."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from mohole.planted.stream import Mix, documents
from mohole.planted.world import CONCEPTS

BOS, EOS = "<bos>", "<eos>"
BOS_ID, EOS_ID = 0, 1
_CHINESE = r"\u2e80-\u9fff\uff00-\uffef"
_PIECES = rf"\n+| ?\p{{N}}| ?[{_CHINESE}]| ?[^\s\p{{L}}\p{{N}}]| ?(?:(?![{_CHINESE}])\p{{L}})+|\s"
_SPLIT = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(_PIECES), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)


def every_word() -> list[str]:
    """Every concept's words as they may stand: after a space, and not."""
    words = [noun.text for concept in CONCEPTS.values() for nouns in concept.words.values() for noun in nouns]
    return words + [f" {word}" for word in words]


def train_tokenizer(seed: int, mix: Mix, n_documents: int = 30_000, n_pieces: int = 2048) -> Tokenizer:
    """BPE on generated text. Every word of the world is shown, also those too rare to be drawn."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _SPLIT
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_pieces,
        min_frequency=2,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [document.text for document in documents(seed, n_documents, mix=mix)]
    tokenizer.train_from_iterator(texts + 3 * every_word(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text: no special tokens."""
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
