"""Texts through the model: loaded with the first one, in a thread of its own, one text at a time, a short queue before it.

A text is a person's own (x-ray), or a place of the corpus at which a feature's contribution is taken away.
"""

from typing import TYPE_CHECKING

from mohole.errors import ModelError
from mohole.serve import finders
from mohole.serve.errors import Refusal
from mohole.serve.finders import XrayRows
from mohole.serve.runs import OpenHookpoint, OpenRun
from mohole.serve.turns import Turns

if TYPE_CHECKING:
    from mohole.act import AblationEffect
    from mohole.dictionary import Autoencoder
    from mohole.model import LanguageModel

LONGEST_QUEUE = 8  # texts that wait or run; a text takes a tenth of a second on a small model, so nobody waits long


class Microscope:
    """The models of the runs that are served, and the one worker that uses them."""

    def __init__(self, longest_queue: int = LONGEST_QUEUE) -> None:
        self._turns = Turns(longest_queue, "texts wait for the model")
        self._models: dict[str, LanguageModel] = {}
        self._dictionaries: dict[str, Autoencoder] = {}

    async def look(self, place: OpenHookpoint, text: str, *, top: int, follow: int | None = None) -> XrayRows:
        """The strongest latents at each token of a text, and one latent along all of it.

        Raises:
            Refusal: the run's model is not here, or too many texts wait.
        """
        _need_model(place.run)
        return await self._turns.take(lambda: self._look(place, text, top, follow))

    async def effect(self, place: OpenHookpoint, latent: int, token: int) -> "AblationEffect":
        """What taking a latent away changes around a token of the corpus.

        Raises:
            Refusal: as `look`.
        """
        _need_model(place.run)
        return await self._turns.take(lambda: self._effect(place, latent, token))

    def _look(self, place: OpenHookpoint, text: str, top: int, follow: int | None) -> XrayRows:
        model, dictionary = self._model(place.run), self._dictionary(place)
        context = place.corpus.context
        return finders.xray(model, dictionary, text, hookpoint=place.name, top=top, follow=follow, context=context)

    def _effect(self, place: OpenHookpoint, latent: int, token: int) -> "AblationEffect":
        from mohole.act import ablation_effect

        return ablation_effect(self._model(place.run), self._dictionary(place), place.corpus, latent, token)

    def _model(self, run: OpenRun) -> "LanguageModel":
        """Loaded once; a model whose bytes are not those that the run was made with is refused.

        Raises:
            ModelError: it cannot be loaded, or is another one.
        """
        assert run.model_digest is not None
        assert run.model_source is not None
        if run.model_digest not in self._models:
            from mohole.model import load_model

            model = load_model(run.model_source, dtype=_dtype(run))
            if model.model_hash != run.model_digest:
                raise ModelError(f"{model.name}: another model than that of {run.name}; serve with --model FOLDER")
            self._models[run.model_digest] = model
        return self._models[run.model_digest]

    def _dictionary(self, place: OpenHookpoint) -> "Autoencoder":
        if place.dictionary not in self._dictionaries:
            from mohole.dictionary.files import open_autoencoder

            self._dictionaries[place.dictionary] = open_autoencoder(place.folder / "dictionary")
        return self._dictionaries[place.dictionary]

    def close(self) -> None:
        """Take no more; what waits is dropped."""
        self._turns.close()


def _need_model(run: OpenRun) -> None:
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
