"""Pins and promotions on a real model registry in a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from jobs.evaluate_specs import EvaluateSpec
from jobs.evaluation.pins import Pins, decide_pins
from jobs.evaluation.promotion import Promotion, promote
from tests.unit.jobs.evaluation.test_report import predictions
from workers.errors import AdapterUnusableError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Name of a registered model of the test's own."""
    return tmp_path.name


@pytest.fixture
def client(store: str, model: str) -> Iterator[MlflowClient]:
    """A registry in which that model has versions 1, 2 and 3."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    client = MlflowClient()
    client.create_registered_model(model)
    for _ in range(3):
        client.create_model_version(model, "file:///adapter")
    yield client
    mlflow.set_tracking_uri(before)


def spec_of(model: str, **fields: Any) -> EvaluateSpec:
    defaults = {
        "kind": "evaluate",
        "name": "promotion",
        "base_model": "/models/base",
        "models": ["base", {"name": "new", "adapter": f"models:/{model}/2"}],
        "tasks": [{"benchmark": name, "data": "file:///r"} for name in ("gsm8k", "svamp")],
        "promote_if_better": {"alias": "champion"},
    }
    return EvaluateSpec.model_validate(defaults | fields)


def run(spec: EvaluateSpec, pins: Pins, client: MlflowClient, new: int, held: int = 0) -> Promotion:
    """Promote where the candidate and the holder have so many of 20 rows of each task right."""
    right = {"new": new, pins.holder: held}
    found = [
        each
        for name in pins.models
        for task in ("gsm8k", "svamp")
        for each in predictions(task, name, right.get(name, 0), 20)
    ]
    promotion = promote(spec, pins, found, client)
    assert promotion is not None
    return promotion


def alias(client: MlflowClient, model: str) -> str | None:
    found = client.get_registered_model(model).aliases.get("champion")
    return None if found is None else str(found)


def test_the_holder_is_asked_too_and_loses_the_alias_to_a_better_candidate(
    client: MlflowClient, model: str, tmp_path: Path
) -> None:
    client.set_registered_model_alias(model, "champion", "1")
    spec = spec_of(model)
    pins = decide_pins(spec, str(tmp_path), client)
    assert pins.holder is not None
    assert pins.models[pins.holder] == f"models:/{model}/1"
    promotion = run(spec, pins, client, new=5, held=2)
    assert promotion.is_promoted
    assert promotion.decision is not None
    # Six of 40 rows better and none worse: one-sided exact McNemar 2**-6.
    assert (promotion.decision.num_better, promotion.decision.num_rows) == (6, 40)
    assert promotion.decision.p_value == pytest.approx(2**-6)
    assert "got 'champion', which version 1 had" in promotion.sentence
    assert alias(client, model) == "2"
    # A driver that dies here has done it: the next attempt sees the same.
    assert run(spec, decide_pins(spec, str(tmp_path), client), client, new=5, held=2) == promotion


def test_a_candidate_that_is_not_shown_to_be_better_is_not_promoted(
    client: MlflowClient, model: str, tmp_path: Path
) -> None:
    client.set_registered_model_alias(model, "champion", "1")
    spec = spec_of(model)
    promotion = run(spec, decide_pins(spec, str(tmp_path), client), client, new=3, held=2)
    assert not promotion.is_promoted  # 2 of 40: p = 1/4
    assert promotion.sentence.startswith("'champion' stays with version 1.")
    assert alias(client, model) == "1"


def test_an_alias_that_nobody_holds_is_given_without_a_test(
    client: MlflowClient, model: str, tmp_path: Path
) -> None:
    spec = spec_of(model)
    promotion = run(spec, decide_pins(spec, str(tmp_path), client), client, new=0)
    assert (promotion.is_promoted, promotion.decision) == (True, None)
    assert alias(client, model) == "2"


def test_a_candidate_that_holds_the_alias_has_nothing_to_win(
    client: MlflowClient, model: str, tmp_path: Path
) -> None:
    client.set_registered_model_alias(model, "champion", "2")
    spec = spec_of(model)
    pins = decide_pins(spec, str(tmp_path), client)
    assert pins.models.keys() == {"base", "new"}
    promotion = run(spec, pins, client, new=5)
    assert not promotion.is_promoted
    assert "holds 'champion' already" in promotion.sentence


def test_an_alias_that_moved_meanwhile_stays_where_it_is(
    client: MlflowClient, model: str, tmp_path: Path
) -> None:
    client.set_registered_model_alias(model, "champion", "1")
    spec = spec_of(model)
    pins = decide_pins(spec, str(tmp_path), client)
    client.set_registered_model_alias(model, "champion", "3")
    promotion = run(spec, pins, client, new=20, held=0)
    assert not promotion.is_promoted
    assert "moved to version 3 during the evaluation" in promotion.sentence
    assert alias(client, model) == "3"


def test_aliases_are_resolved_once_for_all_attempts(
    client: MlflowClient, model: str, tmp_path: Path
) -> None:
    client.set_registered_model_alias(model, "champion", "1")
    spec = spec_of(model, models=[f"models:/{model}@champion"], promote_if_better=None)
    pins = decide_pins(spec, str(tmp_path), client)
    assert list(pins.models.values()) == [f"models:/{model}/1"]
    client.set_registered_model_alias(model, "champion", "3")
    assert decide_pins(spec, str(tmp_path), client) == pins


def test_a_holder_among_the_models_is_asked_once(
    client: MlflowClient, model: str, tmp_path: Path
) -> None:
    client.set_registered_model_alias(model, "champion", "1")
    models = [
        {"name": "new", "adapter": f"models:/{model}/2"},
        {"name": "old", "adapter": f"models:/{model}@champion"},
    ]
    spec = spec_of(model, models=models, promote_if_better={"alias": "champion", "model": "new"})
    pins = decide_pins(spec, str(tmp_path), client)
    assert (pins.holder, list(pins.models)) == ("old", ["new", "old"])


@pytest.mark.parametrize("reference", ["models:/nobody/1", "models:/nobody@champion"])
def test_an_adapter_that_mlflow_does_not_have_is_named(
    reference: str, client: MlflowClient, model: str, tmp_path: Path
) -> None:
    spec = spec_of(model, models=[reference], promote_if_better=None)
    with pytest.raises(AdapterUnusableError, match=r"nobody.*check the URI") as caught:
        decide_pins(spec, str(tmp_path), client)
    assert "base_model" not in str(caught.value)
