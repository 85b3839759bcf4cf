"""A small run behind a real server, with stand-ins for what searches and for the model: what they find is known."""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from tests.report.run_folder import BRIDGE, HOOKPOINTS, make_run
from tests.serve import talking
from tests.serve.talking import make_talking_run

from mohole import act
from mohole.act import AblationEffect, LogitChange
from mohole.corpus import Corpus
from mohole.model import LanguageModel, load_model
from mohole.search.peaks import Peaks
from mohole.serve import finders
from mohole.serve.app import make_app

TOKEN = "a-token-of-tests"
WRITER = {"Authorization": f"Bearer {TOKEN}"}
HOOKPOINT = HOOKPOINTS[0]


@dataclass(frozen=True)
class Hit:
    latent: int
    score: float
    why: str = "it is there"


@dataclass(frozen=True)
class Rows:
    tokens: tuple[str, ...]
    latents: tuple[tuple[int, ...], ...]
    activations: tuple[tuple[float, ...], ...]
    along: tuple[float, ...] | None
    peaks: Peaks


class PlainIndex:
    """Labels that hold the query; the shorter ones first."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels

    def search(self, query: str, limit: int) -> list[Hit]:
        found = [i for i, label in enumerate(self.labels) if query.casefold() in label.casefold()]
        return [Hit(i, 1 / len(self.labels[i])) for i in sorted(found, key=lambda i: len(self.labels[i]))][:limit]


class OneFeature:
    """BRIDGE, whatever is asked."""

    def search(self, query: str, limit: int) -> list[Hit]:
        return [Hit(BRIDGE, 0.5)][:limit]


def plain_xray(
    model: object, dictionary: object, text: str, *, hookpoint: str, top: int, follow: int | None, context: int
) -> Rows:
    """Words are tokens; BRIDGE fires on "Bridge" at 4, latent 1 on every other word at 1. A special token stands in front."""
    words = text.split() or [text]
    fires = [(BRIDGE, 1) if word == "Bridge" else (1,) for word in words]
    values = [(4.0, 1.0) if word == "Bridge" else (1.0,) for word in words]
    along = None
    if follow is not None:
        pairs = (dict(zip(*pair, strict=True)) for pair in zip(fires, values, strict=True))
        along = (0.0, *(pair.get(follow, 0.0) for pair in pairs))
    where: dict[int, tuple[float, int]] = {}
    for token, pairs in enumerate(zip(fires, values, strict=True), start=1):
        for latent, value in zip(*pairs, strict=True):
            where[latent] = max((value, token), where.get(latent, (0.0, 0)), key=lambda each: each[0])
    largest, places = zip(*(where[latent] for latent in sorted(where)), strict=True)
    peaks = Peaks(np.array(sorted(where)), np.float32(largest), np.array(places))
    shown = (tuple(each[:top] for each in column) for column in (fires, values))
    return Rows(("<s>", *words), *(((), *column) for column in shown), along, peaks)


def plain_effect(model: object, dictionary: object, corpus: Corpus, latent: int, token: int) -> AblationEffect:
    """Of two tokens; the second is foretold better with the latent, by its number."""
    tokens = tuple(corpus.pieces[each] for each in corpus.tokens[token : token + 2])
    raised = LogitChange("<0xE2>", 2.5, 0.4, 0.1)
    return AblationEffect(
        hookpoint=HOOKPOINT,
        latent=latent,
        token=token,
        document=int(corpus.document_of(np.array([token]))[0]),
        start=token,
        tokens=tokens,
        activations=(4.0, 0.0),
        loss=(None, 1.5),
        loss_change=(None, float(latent)),
        loss_change_random=(None, 0.0),
        promoted=(raised,),
        suppressed=(),
        n_removed=2,
    )


@pytest.fixture(scope="session")
def pristine_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run. To be copied, not written to."""
    return make_run(tmp_path_factory.mktemp("served") / "small run", n_documents=24)


@pytest.fixture(scope="module")
def run(pristine_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This module's own copy."""
    return shutil.copytree(pristine_run, tmp_path_factory.mktemp("run") / "small run")


@pytest.fixture(scope="session")
def talking_model() -> LanguageModel:
    """The built-in one."""
    return load_model("planted", self_test=False)


@pytest.fixture(scope="session")
def talking_run(tmp_path_factory: pytest.TempPathFactory, talking_model: LanguageModel) -> Path:
    """A run of it, `demo`, with a variant, `golden-gate`. To be copied, not written to."""
    run = make_talking_run(tmp_path_factory.mktemp("talking") / "demo", talking_model)
    clamp = act.Clamp(talking.BRIDGE, times_max=1.0, hookpoint=talking.HOOKPOINT)
    act.save_variant(run, "golden-gate", [clamp], talking_model)
    return run


@contextmanager
def stand_ins() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finders, "label_index", lambda labels, kept, made_from: PlainIndex(labels))
        patch.setattr(finders, "token_index", lambda catalogue, corpus, kept: OneFeature())
        patch.setattr(finders, "xray", plain_xray)
        patch.setattr("mohole.serve.microscope.Microscope._model", lambda self, run: object())
        patch.setattr(act, "ablation_effect", plain_effect)
        yield


@contextmanager
def serving(app: FastAPI, **options: Any) -> Iterator[str]:
    """A real server in a thread; gives its address. `options` are uvicorn's."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., httpx.Client]]:
    """Serve runs, as `make_app` does; gives a client of the server."""
    with ExitStack() as stack:
        stack.enter_context(stand_ins())

        def start(*runs: Path, **options: object) -> httpx.Client:
            app = make_app(runs, **options)
            for each in app.state.served.runs.values():
                each.model_source, each.model_digest = "stand-in", "stand-in"
            address = stack.enter_context(serving(app))
            return stack.enter_context(httpx.Client(base_url=address, timeout=30))

        yield start


@pytest.fixture(scope="module")
def client(serve: Callable[..., httpx.Client], run: Path) -> httpx.Client:
    """Of a server with a token."""
    return serve(run, token=TOKEN)


@pytest.fixture(scope="module")
def at(run: Path) -> str:
    """The address of the first hookpoint."""
    return f"/api/v1/runs/small-run/{HOOKPOINT}"
