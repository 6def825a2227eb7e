"""The metrics of a job, as series to draw."""

import math
from typing import Annotated

from fastapi import APIRouter, Query

from service.dependencies import JobMetricsPart
from service.errors import (
    JobNotFoundError,
    MlflowUnavailableError,
    RequestInvalidError,
    RunNotFoundError,
    TrialNotFoundError,
    problems,
)
from service.job_metrics import MetricsPage
from service.metric_answers import MetricsRead, NotFiniteRead, SeriesRead
from service.series import Series

router = APIRouter(prefix="/jobs/{job_id}/metrics", tags=["jobs"])

_REFUSALS = (
    JobNotFoundError,
    TrialNotFoundError,
    RunNotFoundError,
    RequestInvalidError,
    MlflowUnavailableError,
)
_Key = Annotated[str, Query(min_length=1, max_length=250)]


@router.get("", responses=problems(*_REFUSALS))
async def list_metrics(
    job_id: str,
    metrics: JobMetricsPart,
    key: Annotated[
        list[_Key] | None,
        Query(max_length=50, description="Metrics such as train/loss; by default all."),
    ] = None,
    trial: Annotated[
        str | None,
        Query(
            max_length=200,
            description="A trial of a search, or a training of a comparison such as "
            "lora-lr0.0003-seed0; by default the job itself.",
        ),
    ] = None,
    max_points: Annotated[int, Query(ge=10, le=5000, description="Of each series.")] = 500,
    limit: Annotated[int, Query(ge=1, le=50, description="Series of a part.")] = 20,
    after: Annotated[
        str | None, Query(max_length=250, description="Last key of the part before.")
    ] = None,
) -> MetricsRead:
    """List the metrics of a job's MLflow run with their series, by name; empty before it begins.

    A series of more than `max_points` is shortened: first, last, smallest and largest values stay.
    """
    page = await metrics.page(
        job_id, key or (), trial=trial, max_points=max_points, limit=limit, after=after
    )
    return _metrics_read(page)


def _metrics_read(page: MetricsPage) -> MetricsRead:
    """Metrics as the API answers them."""
    data = [_series_read(key, series) for key, series in page.series.items()]
    return MetricsRead(data=data, has_more=page.has_more, names=list(page.names))


def _series_read(key: str, series: Series) -> SeriesRead:
    return SeriesRead(
        key=key,
        num_points=series.num_points,
        num_not_finite=series.num_not_finite,
        is_sampled=series.is_sampled,
        steps=list(series.steps),
        values=[value if math.isfinite(value) else None for value in series.values],
        times_ms=list(series.times_ms),
        not_finite=[
            NotFiniteRead.model_validate({"step": step, "value": str(value)})
            for step, value in zip(series.steps, series.values, strict=True)
            if not math.isfinite(value)
        ],
    )
