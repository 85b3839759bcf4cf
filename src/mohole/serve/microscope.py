"""Texts through the model: loaded with the first one, in a thread of its own, one text at a time, a short queue before it.

A text is a person's own (x-ray), or a place of the corpus at which a feature's contribution is taken away.
"""

from typing import TYPE_CHECKING

from mohole.serve import finders
from mohole.serve.finders import XrayRows
from mohole.serve.models import Models, need_model
from mohole.serve.runs import OpenHookpoint, OpenRun
from mohole.serve.turns import Turns

if TYPE_CHECKING:
    from mohole.act import AblationEffect
    from mohole.dictionary import Autoencoder
    from mohole.model import LanguageModel

LONGEST_QUEUE = 8  # texts that wait or run; a text takes a tenth of a second on a small model, so nobody waits long


class Microscope:
    """The one worker that reads texts with the models of the runs that are served."""

    def __init__(self, models: Models, longest_queue: int = LONGEST_QUEUE) -> None:
        self._turns = Turns(longest_queue, "texts wait for the model")
        self._models = models
        self._dictionaries: dict[str, Autoencoder] = {}

    async def look(self, place: OpenHookpoint, text: str, *, top: int, follow: int | None = None) -> XrayRows:
        """The strongest latents at each token of a text, and one latent along all of it.

        Raises:
            Refusal: the run's model is not here, or too many texts wait.
        """
        need_model(place.run)
        return await self._turns.take(lambda: self._look(place, text, top, follow))

    async def effect(self, place: OpenHookpoint, latent: int, token: int) -> "AblationEffect":
        """What taking a latent away changes around a token of the corpus.

        Raises:
            Refusal: as `look`.
        """
        need_model(place.run)
        return await self._turns.take(lambda: self._effect(place, latent, token))

    def _look(self, place: OpenHookpoint, text: str, top: int, follow: int | None) -> XrayRows:
        model, dictionary = self._model(place.run), self._dictionary(place)
        context = place.corpus.context
        with self._models.alone(place.run):
            return finders.xray(model, dictionary, text, hookpoint=place.name, top=top, follow=follow, context=context)

    def _effect(self, place: OpenHookpoint, latent: int, token: int) -> "AblationEffect":
        from mohole.act import ablation_effect

        model, dictionary = self._model(place.run), self._dictionary(place)
        with self._models.alone(place.run):
            return ablation_effect(model, dictionary, place.corpus, latent, token)

    def _model(self, run: OpenRun) -> "LanguageModel":
        return self._models.load(run)

    def _dictionary(self, place: OpenHookpoint) -> "Autoencoder":
        if place.dictionary not in self._dictionaries:
            from mohole.dictionary.files import open_autoencoder

            self._dictionaries[place.dictionary] = open_autoencoder(place.folder / "dictionary")
        return self._dictionaries[place.dictionary]

    def close(self) -> None:
        """Take no more; what waits is dropped."""
        self._turns.close()
