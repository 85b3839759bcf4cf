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
PLAIN_STOP = f"\n{_PLAIN['user']}:"
"""Where an answer in the plain template ends: at the user's next turn."""


def has_template(tokenizer: Tokenizer) -> bool:
    """Has the model a chat template of its own?"""
    return bool(getattr(tokenizer.hf, "chat_template", None))


def chat_tokens(tokenizer: Tokenizer, turns: Sequence[tuple[Role, str]]) -> Int[Tensor, "1 position"]:
    """The conversation so far, up to where the assistant is to go on.

    A model that has no template is given `User: ...` and `Assistant:`, a turn to a line, behind its begin-of-text token.

    Raises:
        ConfigError: nothing was said, or turns that the model's template does not take.
    """
    if not any(text for _, text in turns):
        raise ConfigError("chat: nothing was said; give a text")
    if has_template(tokenizer):
        from jinja2 import TemplateError

        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            text = tokenizer.hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)  # type: ignore[attr-defined]
        except TemplateError as error:
            raise ConfigError(f"chat: the model's own template does not take these turns ({error})") from None
        return torch.tensor([tokenizer.encode(text)], dtype=torch.int64)  # templates write begin-of-text themselves
    lines = [f"{_PLAIN[role]}: {text}" for role, text in turns]
    return tokenizer.prompt("\n".join([*lines, f"{_PLAIN['assistant']}:"]))


def answer_of(tokenizer: Tokenizer, tokens: Sequence[int], n_prompt: int) -> str:
    """What was written behind the prompt: to the end-of-text token, and with a plain template to the user's next turn."""
    written = list(tokens[n_prompt:])
    if tokenizer.eos_id in written:
        written = written[: written.index(tokenizer.eos_id)]
    text = tokenizer.decode_behind(tokens[:n_prompt], written)
    return text if has_template(tokenizer) else text.split(PLAIN_STOP)[0]
