"""Requests made up from the API's own description: whatever is asked, the answer is one that it describes, and never a 5xx.

A property test over all operations, bounded: some examples of each, always the same ones.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from tests.serve.conftest import WRITER

load_all_checks()

# What is asked is mostly there to be found, so that more than "no such run" is tested.
KNOWN = {
    "run": "small-run", "hookpoint": "resid_post.0", "modelId": "small-run", "layer": "0-resid_post", "name": "mine", "note": "1",
}  # fmt: skip
LATENTS = ("latent", "index")
# Names and numbers that fit the description need not be those of anything, and not every well-formed text is one.
EXCLUDED = CHECKS.get_by_names(["positive_data_acceptance", "missing_required_header", "ignored_auth"])
REJECTS = CHECKS.get_by_names(["negative_data_rejection"])


@pytest.fixture(scope="module")
def described(client: httpx.Client) -> schemathesis.BaseSchema:
    description = client.get("/api/v1/openapi.json").json()
    for name in ("FeatureList", "MapFacts", "RunPage"):
        description["components"]["schemas"][name] = any_items(description["components"]["schemas"][name])
    del description["components"]["schemas"]["ListAsk"]["properties"]["members"][
        "maxItems"
    ]  # to break it takes seconds
    found = schemathesis.openapi.from_dict(description)
    found.config.update(base_url=str(client.base_url))
    return found


def any_items(schema: Any) -> Any:
    """Without what pairs hold: Schemathesis (4.32) takes a list of pairs in an answer for a broken description."""
    if isinstance(schema, list):
        return [any_items(each) for each in schema]
    if isinstance(schema, dict):
        return {key: any_items(each) for key, each in schema.items() if key != "prefixItems"}
    return schema


def strategies(
    described: schemathesis.BaseSchema, mode: GenerationMode
) -> Iterator[tuple[schemathesis.APIOperation, hypothesis.strategies.SearchStrategy[schemathesis.Case]]]:
    for found in described.get_all_operations():
        operation = found.ok()
        yield operation, operation.as_strategy(generation_mode=mode)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("is_known", [False, True], ids=["about anything", "about what there is"])
def test_every_answer_is_one_that_is_described(
    described: schemathesis.BaseSchema, mode: GenerationMode, is_known: bool
) -> None:
    asked = set()
    for operation, strategy in strategies(described, mode):

        @hypothesis.settings(
            max_examples=10 if mode is GenerationMode.POSITIVE else 5,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=strategy)
        def ask(case: schemathesis.Case) -> None:
            if is_known:
                aim(case)
            asked.add((case.method, case.path))
            answer = case.call(headers=WRITER)
            # To Schemathesis a body that is too large has been taken.
            case.validate_response(answer, excluded_checks=EXCLUDED + REJECTS * (answer.status_code == 413))

        try:
            ask()
        except hypothesis.errors.Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, f"{operation.label}: nothing can be asked"
    assert len(asked) > 15


def aim(case: schemathesis.Case) -> None:
    """At something that there is."""
    for name, value in case.path_parameters.items():
        if name in KNOWN:
            case.path_parameters[name] = KNOWN[name]
        elif name in LATENTS and isinstance(value, int):
            case.path_parameters[name] = value % 45


def test_all_that_is_offered_is_described(client: httpx.Client) -> None:
    found = client.get("/api/v1/openapi.json").json()
    offered = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    base, at = "/api/v1/runs/{run}", "/api/v1/runs/{run}/{hookpoint}"
    feature = f"{at}/features/{{latent}}"
    assert offered == {
        ("GET", "/api/v1/runs"), ("GET", base), ("GET", f"{at}/features"), ("GET", feature), ("GET", f"{feature}/context"),
        ("GET", f"{feature}/neighbours"), ("GET", f"{feature}/together"), ("GET", f"{at}/map"), ("GET", f"{at}/map/points"),
        ("GET", f"{at}/map/tiles/{{z}}/{{x}}/{{y}}"), ("GET", f"{at}/map/places"),
        ("POST", f"{at}/xray"), ("GET", f"{at}/search"), ("PUT", f"{feature}/label"), ("DELETE", f"{feature}/label"),
        ("GET", f"{feature}/notes"), ("POST", f"{feature}/notes"), ("DELETE", f"{base}/notes/{{note}}"),
        ("GET", f"{base}/lists"), ("GET", f"{base}/lists/{{name}}"), ("PUT", f"{base}/lists/{{name}}"),
        ("DELETE", f"{base}/lists/{{name}}"), ("GET", f"{base}/lists/{{name}}/features"), ("GET", f"{feature}/lists"),
        ("PUT", f"{base}/lists/{{name}}/members/{{hookpoint}}/{{latent}}"), ("GET", f"{feature}/effect"),
        ("DELETE", f"{base}/lists/{{name}}/members/{{hookpoint}}/{{latent}}"), ("GET", f"{feature}/matches"),
        ("GET", "/api/feature/{modelId}/{layer}/{index}"),
        ("POST", "/api/activation/new"), ("POST", "/api/search-all"),
    }  # fmt: skip
    for path, methods in found["paths"].items():
        for method, facts in methods.items():
            assert facts["description"], f"{method} {path} says nothing"
            for status, answer in facts["responses"].items():
                if int(status) >= 400:
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Error"), (path, status)
