"""A conversation as the tokens that a model continues, and its answer as a person reads it: the model's template, or plain."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mohole.errors import ConfigError
from mohole.model.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant"]

_PLAIN: dict[Role, str] = {"system": "System", "user": "User", "assistant": "Assistant"}


def chat_tokens(tokenizer: Tokenizer, turns: Sequence[tuple[Role, str]]) -> Int[Tensor, "1 position"]:
    """The conversation so far, up to where the assistant is to go on.

    A model that has no template is given `User: ...` and `Assistant:`, a turn to a line, behind its begin-of-text token.

    Raises:
        ConfigError: nothing was said.
    """
    if not any(text for _, text in turns):
        raise ConfigError("chat: nothing was said; give a text")
    if getattr(tokenizer.hf, "chat_template", None):
        messages = [{"role": role, "content": text} for role, text in turns]
        text = tokenizer.hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)  # type: ignore[attr-defined]
        return torch.tensor([tokenizer.encode(text)], dtype=torch.int64)  # templates write begin-of-text themselves
    lines = [f"{_PLAIN[role]}: {text}" for role, text in turns]
    return tokenizer.prompt("\n".join([*lines, f"{_PLAIN['assistant']}:"]))


def answer_of(tokenizer: Tokenizer, tokens: Sequence[int], n_prompt: int) -> str:
    """What was written behind the prompt: to the end-of-text token, and with a plain template to the user's next turn."""
    written = list(tokens[n_prompt:])
    if tokenizer.eos_id in written:
        written = written[: written.index(tokenizer.eos_id)]
    first = 1 if tokens and tokens[0] == tokenizer.bos_id else 0
    before, whole = (
        tokenizer.decode(list(tokens[first:n_prompt])),
        tokenizer.decode([*tokens[first:n_prompt], *written]),
    )
    text = whole.removeprefix(before) if whole.startswith(before) else tokenizer.decode(written)
    if getattr(tokenizer.hf, "chat_template", None):
        return text
    return text.split(f"\n{_PLAIN['user']}:")[0]
