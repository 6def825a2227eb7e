"""The trials of a search: list, look up, cancel."""

from typing import Annotated

from fastapi import APIRouter, Query

from jobs.tickets import TrialState
from service.answers import Page
from service.dependencies import TrialsPart, ViewsPart
from service.errors import (
    JobNotASearchError,
    JobNotFoundError,
    JobNotRunningError,
    MlflowUnavailableError,
    RequestInvalidError,
    TrialAlreadyEndedError,
    TrialNotFoundError,
    problems,
)
from service.trial_answers import TrialRead

router = APIRouter(prefix="/jobs/{job_id}/trials", tags=["trials"])

_REFUSALS = (
    JobNotFoundError,
    JobNotASearchError,
    TrialNotFoundError,
    MlflowUnavailableError,
)


@router.get("", responses=problems(*_REFUSALS, RequestInvalidError))
async def list_trials(
    job_id: str,
    trials: TrialsPart,
    views: ViewsPart,
    sort: Annotated[
        str,
        Query(
            max_length=200,
            description="What is compared: number, state, started_at, seconds, steps, objective, "
            "objective/METRIC, a searched field such as adapter.curvature, or a metric such as "
            "eval/loss; after a -, the largest come first. Trials without the value come last.",
        ),
    ] = "number",
    state: Annotated[TrialState | None, Query(description="Trials of this state alone.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="Last id of the page before.")] = None,
) -> Page[TrialRead]:
    """List the trials of a search as they stand, oldest first unless `sort` says otherwise."""
    found, has_more = await trials.page(job_id, sort=sort, state=state, limit=limit, after=after)
    return Page(data=[views.trial(job_id, trial) for trial in found], has_more=has_more)


@router.get("/{trial_id}", responses=problems(*_REFUSALS))
async def read_trial(job_id: str, trial_id: str, trials: TrialsPart, views: ViewsPart) -> TrialRead:
    """Look up a trial."""
    return views.trial(job_id, await trials.get(job_id, trial_id))


@router.post(
    "/{trial_id}/cancel", responses=problems(*_REFUSALS, JobNotRunningError, TrialAlreadyEndedError)
)
async def cancel_trial(
    job_id: str, trial_id: str, trials: TrialsPart, views: ViewsPart
) -> TrialRead:
    """End one trial, which may take a moment (see `state`); the search goes on.

    To end all of them, cancel the job.
    """
    return views.trial(job_id, await trials.cancel(job_id, trial_id))
