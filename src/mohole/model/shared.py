"""One loaded model in a process, for everything in it that runs the same one. A worker's tasks load it once."""

from functools import lru_cache

import torch

from mohole import config
from mohole.execute import worker_number
from mohole.model.language_model import LanguageModel
from mohole.model.load import load_model
from mohole.model.memory import keep_freed_memory


@lru_cache(maxsize=1)
def shared_model(settings: config.Model) -> LanguageModel:
    """The model that a recipe names. Nobody may change it: others hold it too.

    Raises:
        ModelError: as `load_model`.
    """
    device = own_device(settings.device)
    if device == "cpu":
        keep_freed_memory()
    return load_model(
        settings.path,
        revision=settings.revision,
        dtype=settings.dtype,
        device=device,
        allow_download=settings.allow_download,
    )


def own_device(device: str) -> str:
    """`cuda` without a number is a GPU for each worker process, in turn. Ray shows it no other than its own."""
    if device != "cuda" or torch.cuda.device_count() < 2:
        return device
    return f"cuda:{worker_number() % torch.cuda.device_count()}"
