"""K over a training, read from the run that trained an adapter."""

from types import SimpleNamespace
from typing import Any

import pytest

from jobs.analysis.curvatures import curvature_histories

LAYER = "model.layers.0.self_attn.q_proj"


class Tracking:
    """An MLflow client that knows one run and one model version."""

    def __init__(self, **histories: list[float]) -> None:
        self._histories = histories

    def get_model_version(self, name: str, version: str) -> Any:
        assert (name, version) == ("sums", "3")
        return SimpleNamespace(run_id="abc")

    def get_run(self, run_id: str) -> Any:
        assert run_id == "abc"
        return SimpleNamespace(data=SimpleNamespace(metrics=dict.fromkeys(self._histories, 0.0)))

    def get_metric_history(self, _: str, key: str) -> list[Any]:
        values = enumerate(self._histories[key], start=1)
        return [SimpleNamespace(step=step, value=value) for step, value in values]


@pytest.mark.parametrize("adapter", ["models:/sums/3", "runs:/abc/adapter"])
def test_the_mean_is_read_where_no_layer_was_measured(adapter: str) -> None:
    client: Any = Tracking(**{"train/curvature": [1.0, 0.9], "train/loss": [3.0, 2.0]})
    assert curvature_histories(client, adapter) == {"mean over layers": [(1, 1.0), (2, 0.9)]}


def test_layers_are_read_where_they_were_measured() -> None:
    metrics = {f"geometry/curvature/{LAYER}": [1.0, 0.5], "train/curvature": [1.0, 0.9]}
    client: Any = Tracking(**metrics)
    assert curvature_histories(client, "models:/sums/3") == {LAYER: [(1, 1.0), (2, 0.5)]}


def test_a_curvature_that_was_not_learned_is_no_history() -> None:
    client: Any = Tracking(**{"train/curvature": [1.0, 1.0]})
    assert curvature_histories(client, "models:/sums/3") == {}


def test_a_long_history_is_thinned_and_keeps_its_end() -> None:
    client: Any = Tracking(**{"train/curvature": [1.0 + step for step in range(1001)]})
    (points,) = curvature_histories(client, "models:/sums/3").values()
    assert len(points) <= 200
    assert points[-1] == (1001, 1001.0)
    assert points == sorted(points)


@pytest.mark.parametrize("adapter", ["/shared/adapter", "models:/m-0123"])
def test_what_names_no_run_has_no_history(adapter: str) -> None:
    client: Any = Tracking(**{"train/curvature": [1.0, 0.9]})
    assert curvature_histories(client, adapter) == {}
