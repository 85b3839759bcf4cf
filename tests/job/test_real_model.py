"""The whole job on a real model and real text, as a user would call it: recipes/stories260k.toml with two paths of one's own."""

from pathlib import Path

import pytest

from mohole.catalogue import Catalogue
from mohole.config import Recipe, read_recipe
from mohole.evaluate import Evaluation, read_evaluation, read_recovery
from mohole.interpret import Labels
from mohole.job import run
from mohole.report import read_findings

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "stories260k.toml"
HOOKPOINT = "resid_post.2"

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def recipe(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The recipe as it ships, on a third of its tokens and steps."""
    data = shared_dir / "data"
    return read_recipe(
        RECIPE,
        [
            f"model.path={data / 'stories260k'}",
            f"corpus.path={data / 'text-english' / 'stories260k_generated.txt'}",
            "corpus.separator='<|endoftext|>'",
            "corpus.max_tokens=130_000",
            "train.steps=300",
            "evaluate.max_documents=60",
            f"run={tmp_path_factory.mktemp('real') / 'run'}",
        ],
    )


@pytest.fixture(scope="module")
def evaluation(recipe: Recipe) -> Evaluation:
    of_the_dictionary = [f"{stage} {HOOKPOINT}" for stage in ("train", "evaluate", "catalogue", "label")]
    assert [*run(recipe)] == ["corpus", "harvest", *of_the_dictionary, "steer"]
    return read_evaluation(Path(recipe.run) / HOOKPOINT / "evaluation")


def test_the_model_reads_its_own_stories_as_well_as_its_authors_say(evaluation: Evaluation) -> None:
    # 1.51 nats per token on real TinyStories (the model's README); text sampled from it at temperature 1 is a little dearer.
    clean = evaluation.measures["ce_clean"].value
    assert clean is not None
    assert 1.4 < clean < 1.8


def test_the_dictionary_explains_most_of_it_and_harms_little(evaluation: Evaluation) -> None:
    values = {name: measure.value or 0.0 for name, measure in evaluation.measures.items()}
    assert values["fvu"] < 0.12
    assert values["l0"] <= 16.0
    assert 0.9 < values["ce_recovered"] <= 1.02
    assert values["ce_clean"] - 0.02 < values["ce_replaced"] < values["ce_clean"] + 0.4
    assert values["ce_mean"] > values["ce_clean"] + 1.0


def test_text_without_truth_has_no_recovery(recipe: Recipe, evaluation: Evaluation) -> None:
    assert read_recovery(Path(recipe.run) / HOOKPOINT / "evaluation") is None


def test_many_latents_have_a_rule_that_holds_on_unseen_stories(recipe: Recipe, evaluation: Evaluation) -> None:
    folder = Path(recipe.run) / HOOKPOINT
    labels, catalogue = Labels.open(folder / "labels"), Catalogue.open(folder / "catalogue")
    good = [label for label in labels if label.status == "good"]
    assert len(good) > 0.2 * catalogue.n_latents


def test_the_page_shows_what_was_measured(recipe: Recipe, evaluation: Evaluation) -> None:
    findings = read_findings(recipe.run, model="stories260k", max_features=20)
    place = findings.hookpoints[0]
    assert place.hookpoint == HOOKPOINT
    assert findings.steering is not None
    assert all(shown.n_fired == shown.n_tokens for shown in findings.steering.generations)
