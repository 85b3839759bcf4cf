"""The language models of the runs that are served: each loaded once, when it is first needed; one thread at a time uses it."""

import threading
from typing import TYPE_CHECKING

from mohole.errors import ModelError
from mohole.serve.errors import Refusal
from mohole.serve.runs import OpenRun
from mohole.serve.turns import InTurn

if TYPE_CHECKING:
    from mohole.model import LanguageModel


class Models:
    """By the digests of their files: runs of one model share it."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._loading = threading.Lock()
        self._loaded: dict[str, LanguageModel] = {}
        self._turns: dict[str, InTurn] = {}

    def load(self, run: OpenRun) -> "LanguageModel":
        """Loaded once; a model whose bytes are not those that the run was made with is refused.

        Raises:
            ModelError: it cannot be loaded, or is another one.
        """
        assert run.model_digest is not None
        assert run.model_source is not None
        with self._loading:
            if run.model_digest not in self._loaded:
                from mohole.model import load_model

                model = load_model(run.model_source, dtype=_dtype(run), device=self._device)
                if model.model_hash != run.model_digest:
                    raise ModelError(f"{model.name}: another model than that of {run.name}; serve with --model FOLDER")
                self._loaded[run.model_digest] = model
            return self._loaded[run.model_digest]

    def alone(self, run: OpenRun) -> InTurn:
        """To be held while its model runs: hooks of one thread would reach another's pass."""
        return self._turns.setdefault(run.model_digest or "", InTurn())


def need_model(run: OpenRun) -> None:
    """Raises: Refusal: the run's model is not here."""
    if run.model_source is None:
        raise Refusal(
            503,
            f"{run.name}: its model ({run.model_name}) is not on this machine",
            "mohole serve RUN --model FOLDER names a folder that holds it",
            {"Retry-After": "3600"},
        )


def _dtype(run: OpenRun) -> str:
    """What the model computed in when the run's rows were made."""
    if "activations" not in run.manifests:
        return "float32"
    model = run.manifests["activations"].inputs.config.get("model", {})
    return str(model.get("dtype", "float32")) if isinstance(model, dict) else "float32"
