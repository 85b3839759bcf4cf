"""mohole: drill through a neural network's activations into sparse, nameable, steerable features.

The names below are imported when first used, so that `import mohole` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mohole.version import __version__

if TYPE_CHECKING:
    from mohole.act import (
        Ablate,
        Add,
        Cap,
        Clamp,
        Orthogonalise,
        Scale,
        Sources,
        Swap,
        When,
        Where,
        ablation_effect,
        steer,
    )
    from mohole.catalogue import Catalogue
    from mohole.corpus import Corpus
    from mohole.dictionary import load_dictionary
    from mohole.interpret import Labels
    from mohole.job import read_recipe, run
    from mohole.model import load_model
    from mohole.store import Store

_WHERE = {
    "Ablate": "mohole.act",
    "Add": "mohole.act",
    "Cap": "mohole.act",
    "Catalogue": "mohole.catalogue",
    "Clamp": "mohole.act",
    "Corpus": "mohole.corpus",
    "Labels": "mohole.interpret",
    "Orthogonalise": "mohole.act",
    "Scale": "mohole.act",
    "Sources": "mohole.act",
    "Store": "mohole.store",
    "Swap": "mohole.act",
    "When": "mohole.act",
    "Where": "mohole.act",
    "ablation_effect": "mohole.act",
    "load_dictionary": "mohole.dictionary",
    "load_model": "mohole.model",
    "read_recipe": "mohole.job",
    "run": "mohole.job",
    "steer": "mohole.act",
}

__all__ = [
    "Ablate",
    "Add",
    "Cap",
    "Catalogue",
    "Clamp",
    "Corpus",
    "Labels",
    "Orthogonalise",
    "Scale",
    "Sources",
    "Store",
    "Swap",
    "When",
    "Where",
    "__version__",
    "ablation_effect",
    "load_dictionary",
    "load_model",
    "read_recipe",
    "run",
    "steer",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"mohole has no attribute {name!r}; it has {', '.join(sorted(_WHERE))}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*_WHERE, "__version__"])
