"""What the HTTP API answers about the trials of a search."""

from datetime import datetime

from pydantic import Field

from jobs.search_space import Value
from jobs.tickets import TrialState
from service.answers import Answer


class TrialLinksRead(Answer):
    """Where a trial can be looked at."""

    self_: str | None = Field(None, alias="self")
    """The trial itself."""

    job: str | None = None
    """The search."""

    mlflow_run: str | None = None
    """Page of the trial's MLflow run."""


class TrialRead(Answer):
    """One trial of a search."""

    id: str
    """`trial-` and its number, counted from the first; unique in its search."""

    state: TrialState
    """Where the trial stands."""

    reason: str | None = None
    """Why it ended before its last step, or failed."""

    values: dict[str, Value]
    """Its values of the searched fields."""

    objectives: dict[str, float]
    """Each objective by metric, the mean over its seeds; empty before its end."""

    errors: dict[str, float]
    """Standard error of each objective; empty with one seed."""

    metrics: dict[str, float]
    """Last value of each metric of its run that is a finite number."""

    step: int | None = None
    """Optimizer steps done; null before the first."""

    total_steps: int | None = None
    """Optimizer steps to do; null while unknown."""

    started_at: datetime | None = None
    """When it began."""

    finished_at: datetime | None = None
    """When it ended."""

    seconds: float | None = None
    """From its begin to its end, or until now."""

    is_best: bool = False
    """Whether it is the best so far or, with several objectives, in the Pareto set."""

    cancel_requested: bool = False
    """Whether a user has cancelled it; it ends once the search has seen that."""

    links: TrialLinksRead = TrialLinksRead()
    """Where else the trial can be looked at."""
