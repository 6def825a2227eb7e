"""K over the training of an adapter, from the run that trained it."""

from mlflow import MlflowClient

from workers.specs import RunMetric

_BY_LAYER = "geometry/curvature/"
"""Begins the metrics that trainings write with `training.geometry_every_steps`."""

_MOST_POINTS = 200
"""What a plot of a series can show."""

History = list[tuple[int, float]]
"""Optimizer steps with the K after each."""


def curvature_histories(client: MlflowClient, adapter: str) -> dict[str, History]:
    """Read the series in which K changes: of each layer where there are any, else the mean.

    Args:
        client: Connected to the tracking server that holds the run.
        adapter: An MLflow URI, pinned to a version, or a folder, whose run is unknown.
    """
    run_id = _run_of(client, adapter)
    if run_id is None:
        return {}
    metrics = client.get_run(run_id).data.metrics
    names = {key: key.removeprefix(_BY_LAYER) for key in metrics if key.startswith(_BY_LAYER)}
    if not names and RunMetric.CURVATURE in metrics:
        names = {RunMetric.CURVATURE: "mean over layers"}
    histories = {name: _history(client, run_id, key) for key, name in names.items()}
    return {
        name: history
        for name, history in histories.items()
        if len({curvature for _, curvature in history}) > 1
    }


def _run_of(client: MlflowClient, adapter: str) -> str | None:
    if adapter.startswith("runs:/"):
        return adapter.removeprefix("runs:/").strip("/").partition("/")[0]
    if adapter.startswith("models:/"):
        name, _, version = adapter.removeprefix("models:/").partition("/")
        return client.get_model_version(name, version).run_id if version else None
    return None


def _history(client: MlflowClient, run_id: str, key: str) -> History:
    """A metric's values; of long ones, the last and others evenly spaced."""
    values = {point.step: point.value for point in client.get_metric_history(run_id, key)}
    points = sorted(values.items())
    stride = -(-len(points) // _MOST_POINTS)
    return points[::-stride][::-1] if points else []
