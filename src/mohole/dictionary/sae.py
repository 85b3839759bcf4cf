"""The sparse autoencoder: a dictionary for one hookpoint. Encoding, decoding, saving, loading; not training.

    pre = (x - b_dec) W_enc^T + b_enc        f = nonlinearity(pre)        x^ = f W_dec + b_dec

All in the model's own units: rows go in as the model makes them, and one unit of f moves the row by one unit length,
because every decoder row has norm 1. Shapes: W_enc [latent, d], W_dec [latent, d].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor

from mohole import artifact
from mohole.config import Nonlinearity, TopK
from mohole.dictionary.codes import SparseCodes, from_selection
from mohole.errors import ArtifactError
from mohole.kernels.sparse import top_k
from mohole.record import read_json, write_json
from mohole.tensors import open_tensors, write_tensors

WEIGHTS_FILE = "dictionary.safetensors"
FACTS_FILE = "dictionary.json"


@runtime_checkable
class Dictionary(Protocol):
    """Turns rows into a few active latents and back. Rows do not affect each other: a batch may be cut anywhere."""

    @property
    def hookpoint(self) -> str: ...

    @property
    def n_latents(self) -> int: ...

    @property
    def d_model(self) -> int: ...

    def encode(self, rows: Float[Tensor, "row d"]) -> SparseCodes:
        """Latent activations in model units; absent means zero."""
        ...

    def decode(self, codes: SparseCodes) -> Float[Tensor, "row d"]:
        """The reconstruction, in model units."""
        ...

    def directions(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent d"]:
        """Unit decoder directions of these latents."""
        ...


@dataclass(frozen=True)
class SparseAutoencoder:
    """A trained sparse autoencoder. Satisfies `Dictionary`."""

    hookpoint: str
    nonlinearity: Nonlinearity
    W_enc: Float[Tensor, "latent d"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d"]
    b_dec: Float[Tensor, " d"]

    @property
    def n_latents(self) -> int:
        return self.W_dec.shape[0]

    @property
    def d_model(self) -> int:
        return self.W_dec.shape[1]

    def pre_activations(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row latent"]:
        """Before the nonlinearity. Memory is rows x latents: give a few thousand rows at a time."""
        return torch.addmm(self.b_enc, rows - self.b_dec, self.W_enc.T)

    def encode(self, rows: Float[Tensor, "row d"]) -> SparseCodes:
        """Latent activations in model units; absent means zero."""
        match self.nonlinearity:
            case TopK(k=k):
                return from_selection(*top_k(self.pre_activations(rows), k), self.n_latents)

    def decode(self, codes: SparseCodes) -> Float[Tensor, "row d"]:
        """The reconstruction, in model units."""
        summed = torch.nn.functional.embedding_bag(
            codes.latents, self.W_dec, codes.row_starts[:-1], mode="sum", per_sample_weights=codes.values
        )
        return summed + self.b_dec

    def directions(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent d"]:
        """Unit decoder directions of these latents."""
        return self.W_dec[latents]

    def save(self, out: Path, *, training: Mapping[str, Any] | None = None) -> None:
        """Write the dictionary's two files into `out`. `training` is kept for readers who ask how it was made."""
        tensors = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        write_tensors(out / WEIGHTS_FILE, {name: tensor.numpy() for name, tensor in tensors.items()})
        facts = {
            "hookpoint": self.hookpoint,
            "nonlinearity": self.nonlinearity.model_dump(),
            "training": training or {},
        }
        write_json(out / FACTS_FILE, facts)

    @classmethod
    def open(cls, path: Path | str) -> "SparseAutoencoder":
        """Open a finished dictionary artifact.

        Raises:
            ArtifactError: missing, unfinished, damaged, or of another kind.
        """
        path = Path(path)
        artifact.open_artifact(path, kind="dictionary")
        tensors = {name: torch.from_numpy(array.copy()) for name, array in open_tensors(path / WEIGHTS_FILE).items()}
        facts = read_json(path / FACTS_FILE, "hookpoint", "nonlinearity")
        try:
            return cls(facts["hookpoint"], TopK.model_validate(facts["nonlinearity"]), **tensors)
        except (TypeError, ValidationError) as error:
            raise ArtifactError(f"{path}: not a dictionary mohole can read ({error})") from None


def load_dictionary(path: Path | str) -> SparseAutoencoder:
    """Open the dictionary at `path`, a folder made by `mohole train`."""
    return SparseAutoencoder.open(path)
