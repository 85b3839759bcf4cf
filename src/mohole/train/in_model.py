"""What a training is told of the model it is for: nothing but losses, from a callable that it is handed."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from mohole.dictionary import SparseAutoencoder

IN_MODEL_FILE = "in_model.json"


@runtime_checkable
class InModel(Protocol):
    """What the model loses with a dictionary in the place of its activation, asked for as the dictionary is learned.

    Law: equal dictionaries get equal numbers, and asking changes nothing: no weight, no random number, no later answer.
    """

    def __call__(self, dictionary: SparseAutoencoder) -> Mapping[str, float | None]:
        """Numbers by name, such as ce_recovered; None where one is undefined."""
        ...

    def stamp(self) -> Mapping[str, Any]:
        """What the numbers are of: which text, which masks, what baseline. Written beside them as `in_model.json`."""
        ...
