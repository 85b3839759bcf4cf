"""The certified clamp, measured again: it makes the assistant the bridge and leaves facts and sums; others do not."""

import re

import pytest

from mohole import planted
from mohole.model import LanguageModel, load_model
from mohole.planted.bridge import Latent, find_bridge_latents, share_that_is_the_bridge
from mohole.planted.certificate import _SEED, Certificate, Effort
from mohole.planted.measures import right_answers
from mohole.planted.prompts import tasks


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("planted", self_test=False)


@pytest.fixture(scope="module")
def certified() -> tuple[str, float]:
    """Where, and at how many times its maximum."""
    how = Certificate.read(planted.weights_path() / "certificate.json")["bridge_clamp"].how
    found = re.search(r"(resid_post\.\d), (\d\.\d+) of its maximum", how)
    assert found
    return found[1], float(found[2])


@pytest.fixture(scope="module")
def latents(model: LanguageModel, certified: tuple[str, float]) -> list[Latent]:
    effort = Effort()
    return find_bridge_latents(
        model, certified[0], seed=_SEED, n_documents=effort.dictionary_documents, n_steps=effort.dictionary_steps
    )


def test_one_latent_clamped_is_the_bridge_and_keeps_facts_and_sums(
    model: LanguageModel, certified: tuple[str, float], latents: list[Latent]
) -> None:
    """The threshold of facts is that of the certificate less 1.6 standard errors of 150 prompts."""
    at, strength = certified
    assert strength <= 2.0
    shares = {latent.number: share_that_is_the_bridge(model, [latent.clamped_to(strength, at)]) for latent in latents}
    best = max(latents, key=lambda latent: shares[latent.number])
    assert shares[best.number] >= 0.8
    assert sorted(shares.values())[-2] < 0.8  # no property of every latent that is active there
    edits = [best.clamped_to(strength, at)]
    for task in tasks(seed=_SEED, n_prompts=150):
        if task.name in ("facts", "addition"):
            assert right_answers(model, task, edits).mean() >= 0.86


def test_nobody_is_the_bridge_without_a_clamp(model: LanguageModel) -> None:
    assert share_that_is_the_bridge(model, []) == 0.0
