"""Texts through the model: loaded with the first one, in a thread of its own, one text at a time, a short queue before it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from mohole.errors import ModelError
from mohole.serve import finders
from mohole.serve.errors import Refusal
from mohole.serve.finders import XrayRows
from mohole.serve.runs import OpenHookpoint, OpenRun

if TYPE_CHECKING:
    from mohole.dictionary import Autoencoder
    from mohole.model import LanguageModel

Found = TypeVar("Found")

LONGEST_QUEUE = 8  # texts that wait or run; a text takes a tenth of a second on a small model, so nobody waits long
_RETRY_SECONDS = 2


class Microscope:
    """The models of the runs that are served, and the one worker that uses them."""

    def __init__(self, longest_queue: int = LONGEST_QUEUE) -> None:
        self._longest_queue = longest_queue
        self._n_queued, self._counting = 0, threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="xray")
        self._models: dict[str, LanguageModel] = {}
        self._dictionaries: dict[str, Autoencoder] = {}

    async def look(self, place: OpenHookpoint, text: str, *, top: int, follow: int | None = None) -> XrayRows:
        """The strongest latents at each token of a text, and one latent along all of it.

        Raises:
            Refusal: the run's model is not here, or too many texts wait.
        """
        if place.run.model_source is None:
            raise Refusal(
                503,
                f"{place.run.name}: its model ({place.run.model_name}) is not on this machine",
                "mohole serve RUN --model FOLDER names a folder that holds it",
                {"Retry-After": "3600"},
            )
        return await self._queued(lambda: self._look(place, text, top, follow))

    async def _queued(self, work: Callable[[], Found]) -> Found:
        with self._counting:
            if self._n_queued >= self._longest_queue:
                raise Refusal(
                    503,
                    f"{self._n_queued} texts wait for the model already",
                    "ask again in a moment",
                    {"Retry-After": str(_RETRY_SECONDS)},
                )
            self._n_queued += 1
        done = self._worker.submit(work)
        done.add_done_callback(self._one_less)  # not when the asker goes away: the work goes on
        return await asyncio.wrap_future(done)

    def _one_less(self, done: "Future[Found]") -> None:
        with self._counting:
            self._n_queued -= 1

    def _look(self, place: OpenHookpoint, text: str, top: int, follow: int | None) -> XrayRows:
        model, dictionary = self._model(place.run), self._dictionary(place)
        context = place.corpus.context
        return finders.xray(model, dictionary, text, hookpoint=place.name, top=top, follow=follow, context=context)

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
        self._worker.shutdown(wait=False, cancel_futures=True)


def _dtype(run: OpenRun) -> str:
    """What the model computed in when the run's rows were made."""
    if "activations" not in run.manifests:
        return "float32"
    model = run.manifests["activations"].inputs.config.get("model", {})
    return str(model.get("dtype", "float32")) if isinstance(model, dict) else "float32"
