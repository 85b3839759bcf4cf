"""The planted world: documents whose concepts are known at every token, and a small Llama that has learnt them.

documents(seed, count)      readable text in four languages with the truth about its characters
entropy_floor(...)          the loss that no model can beat, exactly
tasks(), bridge_prompts()   what the model can do, as prompts from combinations it never saw
plant(folder, seed)         train the model again
certify(model)              measure whether all that was planted is there
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mohole.planted.certificate import Certificate, Effort, Measure, certify, weights_digest
    from mohole.planted.prompts import bridge_prompts, says_it_is_the_bridge, tasks
    from mohole.planted.stream import EntropyFloor, Mix, documents, entropy_floor
    from mohole.planted.training import Recipe, plant

_WHERE = {
    "Certificate": "certificate",
    "Effort": "certificate",
    "EntropyFloor": "stream",
    "Measure": "certificate",
    "Mix": "stream",
    "Recipe": "training",
    "bridge_prompts": "prompts",
    "certify": "certificate",
    "documents": "stream",
    "entropy_floor": "stream",
    "plant": "training",
    "says_it_is_the_bridge": "prompts",
    "tasks": "prompts",
    "weights_digest": "certificate",
}

__all__ = [
    "Certificate",
    "Effort",
    "EntropyFloor",
    "Measure",
    "Mix",
    "Recipe",
    "bridge_prompts",
    "certify",
    "documents",
    "entropy_floor",
    "plant",
    "says_it_is_the_bridge",
    "tasks",
    "weights_digest",
    "weights_path",
]


def weights_path() -> Path:
    """The folder of the built-in model: an ordinary Hugging Face checkpoint, with its certificate.json beside it."""
    return Path(__file__).parent / "weights"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"mohole.planted has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"mohole.planted.{_WHERE[name]}"), name)
