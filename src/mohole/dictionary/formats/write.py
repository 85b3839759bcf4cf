"""What writers of other libraries' formats share: tensors into a file, and refusals that say what the library lacks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from mohole.dictionary.files import AnyDictionary, kind_of
from mohole.dictionary.latents import Latents
from mohole.errors import ArtifactError
from mohole.tensors import write_tensors

NO_ROW_NORM = "nothing in it normalises each row by itself, and no weights do the same (SAELens has a setting for it)"


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, in float32."""
    write_tensors(path, {name: np.ascontiguousarray(tensor.float().numpy()) for name, tensor in tensors.items()})


def no_negative_thresholds(library: str, latents: Latents) -> Tensor:
    """The thresholds, for a library that cuts everything below zero away.

    Raises:
        ArtifactError: one is below zero, so that mohole's codes have negative values there.
    """
    assert latents.threshold is not None
    if bool((latents.threshold < 0).any()):
        latent = int((latents.threshold < 0).nonzero()[0, 0])
        raise ArtifactError(
            f"{library}: the threshold of latent {latent} is {float(latents.threshold[latent]):g}, and {library} has no "
            "negative activations; clamp it to 0 first, or write --to mohole"
        )
    return latents.threshold


def refuse(library: str, dictionary: AnyDictionary, why: str) -> ArtifactError:
    """The error for a dictionary that the library does not have."""
    return ArtifactError(f"{library}: cannot hold this {kind_of(dictionary)}: {why}; --to mohole can")
