"""Clients of Neuronpedia's addresses find their keys, with our numbers in them."""

import re
from itertools import pairwise

import httpx
import pytest
from tests.report.run_folder import BRIDGE, DEAD
from tests.serve.conftest import HOOKPOINT

from mohole.catalogue import Catalogue
from mohole.serve import shapes

FEATURE_KEYS = set(
    re.findall(
        r"\w+",
        """modelId layer index hookName maxActApprox frac_nonzero pos_str pos_values neg_str neg_values
    freq_hist_data_bar_heights freq_hist_data_bar_values logits_hist_data_bar_heights logits_hist_data_bar_values
    topkCosSimIndices topkCosSimValues neuron_alignment_indices neuron_alignment_values neuron_alignment_l1
    correlated_neurons_indices correlated_neurons_pearson correlated_neurons_l1 correlated_features_indices
    correlated_features_pearson correlated_features_l1 decoder_weights_dist umap_x umap_y umap_cluster
    umap_log_feature_sparsity hasVector vector vectorLabel vectorDefaultSteerStrength activations explanations comments
    lists""",
    )
)
ACTIVATION_KEYS = set(
    re.findall(
        r"\w+",
        """tokens values maxValue maxValueTokenIndex minValue binMin binMax binContains qualifyingTokenIndex dfaValues
    dfaTargetIndex dfaMaxValue lossValues dataIndex dataSource""",
    )
)


@pytest.mark.parametrize("layer", [HOOKPOINT, "0-resid_post"])
def test_a_feature_has_their_keys_and_our_numbers(client: httpx.Client, run, layer: str) -> None:
    catalogue = Catalogue.open(run / HOOKPOINT / "catalogue")
    feature, n_tokens = catalogue.feature(BRIDGE), catalogue.n_tokens
    answer = client.get(f"/api/feature/small-run/{layer}/{BRIDGE}")
    found = answer.json()
    assert set(found) >= FEATURE_KEYS
    assert (found["modelId"], found["layer"], found["index"]) == ("small-run", layer, str(BRIDGE))
    assert (found["maxActApprox"], found["frac_nonzero"]) == (feature.maximum, feature.density)
    for names, wanted in (
        (("pos_str", "pos_values"), feature.promoted),
        (("neg_str", "neg_values"), feature.suppressed),
        (("topkCosSimIndices", "topkCosSimValues"), feature.neighbours),
        (
            ("correlated_features_indices", "correlated_features_pearson"),
            tuple((other, phi) for other, _, phi in feature.together),
        ),
    ):
        assert wanted, names
        assert tuple(zip(*(found[name] for name in names), strict=True)) == wanted
    assert sum(found["freq_hist_data_bar_heights"]) == feature.count
    edges = feature.histogram.edges
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    assert found["freq_hist_data_bar_values"] == pytest.approx(middles)
    assert "Golden-Gate-Brücke" in found["explanations"][0]["description"]
    top = [each for each in found["activations"] if each["binMin"] == -1]
    assert [each["maxValue"] for each in top] == [example.activation for example in feature.top]
    for each in found["activations"]:
        assert set(each) >= ACTIVATION_KEYS
        assert len(each["tokens"]) == len(each["values"])
        assert each["maxValue"] == max(each["values"]) == each["values"][each["maxValueTokenIndex"]] > 0
        if each["binMin"] >= 0:
            assert each["binMin"] < each["values"][each["qualifyingTokenIndex"]] <= each["binMax"]
            (count,) = (interval.count for interval in feature.intervals if interval.low == each["binMin"])
            assert each["binContains"] == count / n_tokens, "of all tokens"
    assert client.get(answer.url, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    dead = client.get(f"/api/feature/small-run/{layer}/{DEAD}").json()
    assert (dead["activations"], dead["freq_hist_data_bar_heights"], dead["maxActApprox"]) == ([], [], 0.0)


def test_what_there_is_not_is_404(client: httpx.Client) -> None:
    for path in ("other/resid_post.0/1", "small-run/7-resid_post/1", "small-run/resid_post.0/100000", "small-run//1"):
        answer = client.get(f"/api/feature/{path}")
        assert answer.status_code == 404
        assert shapes.Error.model_validate(answer.json())


def test_a_feature_along_a_text(client: httpx.Client) -> None:
    feature = {"modelId": "small-run", "source": "0-resid_post", "index": str(BRIDGE)}
    ask = {"feature": feature, "customText": "the Bridge", "ignoreBos": True}
    found = client.post("/api/activation/new", json=ask).json()
    assert (found["tokens"], found["values"]) == (["<s>", "the", "Bridge"], [0.0, 0.0, 4.0])
    assert (found["maxValue"], found["maxValueIndex"]) == (4.0, 2)
    both = client.post("/api/activation/new", json=ask | {"customText": ["the Bridge", "no"]}).json()
    assert (both[0], both[1]["maxValue"]) == (found, 0.0)
    for wrong in ({"customText": ""}, {"customText": []}, {"feature": feature | {"index": "x"}}):
        assert client.post("/api/activation/new", json=ask | wrong).status_code == 422
    missing = client.post("/api/activation/new", json=ask | {"feature": feature | {"source": "9-resid_post"}})
    assert missing.status_code == 404


def test_features_that_fire_on_a_text(client: httpx.Client, run) -> None:
    ask = {"modelId": "small-run", "sourceSet": "resid_post", "text": "the Bridge", "selectedLayers": ["0-resid_post"]}
    found = client.post("/api/search-all", json=ask | {"sortIndexes": [], "ignoreBos": True}).json()
    assert found["tokens"] == ["<s>", "the", "Bridge"]
    assert [(each["index"], each["values"]) for each in found["result"]] == [
        (str(BRIDGE), [0.0, 0.0, 4.0]),
        ("1", [0.0, 1.0, 1.0]),
    ]
    assert {each["layer"] for each in found["result"]} == {"0-resid_post"}
    by_first = client.post("/api/search-all", json=ask | {"sortIndexes": [1], "numResults": 1}).json()
    assert [each["index"] for each in by_first["result"]] == ["1"]
    every_layer = client.post("/api/search-all", json=ask | {"selectedLayers": []}).json()["result"]
    assert {each["layer"] for each in every_layer} == {"resid_post.0", "resid_post.1"}
    density = Catalogue.open(run / HOOKPOINT / "catalogue").density
    assert density[1] != density[BRIDGE]
    rare = int(min((1, BRIDGE), key=lambda latent: density[latent]))
    few = client.post("/api/search-all", json=ask | {"densityThreshold": float(density[rare])}).json()["result"]
    assert [each["index"] for each in few] == [str(rare)]
