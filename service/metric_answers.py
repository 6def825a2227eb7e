"""What the HTTP API answers about the metrics of a job."""

from typing import Literal

from service.answers import Answer, Page


class NotFiniteRead(Answer):
    """A value of a series that is no number."""

    step: int
    """Where."""

    value: Literal["nan", "inf", "-inf"]
    """What it is."""


class SeriesRead(Answer):
    """One metric of a run, as columns of equal length that rise with the step."""

    key: str
    """The metric, such as train/loss."""

    num_points: int
    """Steps that have a value; `steps` may hold fewer of them."""

    num_not_finite: int
    """How many of these values are NaN or infinite."""

    is_sampled: bool
    """Whether the series is so long that MLflow has sampled it: extremes may be missing, and
    `num_points` counts the samples. Ask for fewer keys at once to get longer ones whole."""

    steps: list[int]
    """On a training's metrics, the optimizer step."""

    values: list[float | None]
    """The value at each step; null where it is not finite."""

    times_ms: list[int]
    """When each was logged, in milliseconds of Unix time."""

    not_finite: list[NotFiniteRead]
    """What stands at each null."""


class MetricsRead(Page[SeriesRead]):
    """Metrics of a job, by name; `after` takes the last `key` of a part."""

    names: list[str]
    """All metrics that there are so far."""
