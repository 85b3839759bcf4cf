"""Any causal language model of Hugging Face, with named hookpoints, hooks that read and write them, and a self-test.

transformers is imported only when a model is loaded or made.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mohole.model.hookpoints import Hookpoint, all_hookpoints, parse_hookpoint
    from mohole.model.hooks import Edit, EditTally
    from mohole.model.language_model import LanguageModel
    from mohole.model.load import load_model, new_model, save_model
    from mohole.model.orthogonal import orthogonalised
    from mohole.model.passes import PassEdits, PassTokens, TextCache
    from mohole.model.tokenizer import Tokenizer
    from mohole.model.trunk import Trunk, Untouched

_WHERE = {
    "Edit": "mohole.model.hooks",
    "EditTally": "mohole.model.hooks",
    "Hookpoint": "mohole.model.hookpoints",
    "LanguageModel": "mohole.model.language_model",
    "PassEdits": "mohole.model.passes",
    "PassTokens": "mohole.model.passes",
    "TextCache": "mohole.model.passes",
    "Tokenizer": "mohole.model.tokenizer",
    "Trunk": "mohole.model.trunk",
    "Untouched": "mohole.model.trunk",
    "all_hookpoints": "mohole.model.hookpoints",
    "load_model": "mohole.model.load",
    "new_model": "mohole.model.load",
    "orthogonalised": "mohole.model.orthogonal",
    "parse_hookpoint": "mohole.model.hookpoints",
    "save_model": "mohole.model.load",
}

__all__ = [
    "Edit",
    "EditTally",
    "Hookpoint",
    "LanguageModel",
    "PassEdits",
    "PassTokens",
    "TextCache",
    "Tokenizer",
    "Trunk",
    "Untouched",
    "all_hookpoints",
    "load_model",
    "new_model",
    "orthogonalised",
    "parse_hookpoint",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"mohole.model has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_WHERE[name]), name)
