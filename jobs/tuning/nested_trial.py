"""A trial whose training needs several workers: it starts a worker group of Ray Train."""

from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle

from jobs.distributed import fit
from jobs.errors import JobError, StoppedEarlyError
from jobs.search_specs import SearchSpec
from jobs.stop_signal import StopSignal
from jobs.tickets import JobTicket, RunTag, TrialState
from jobs.tuning.objectives import means_and_errors, objectives_of
from jobs.tuning.trial import TrialFailedError
from jobs.tuning.trial_reporter import CHECKPOINT_PATH, IS_COMPLETE
from jobs.tuning.trial_runs import TrialOutcome, TrialRuns, state_of


def run_nested_trial(config: Mapping[str, Any], *, ticket: str, wishes: ActorHandle) -> None:
    """Train one trial to its end on workers of its own.

    Ray Tune hears of the end alone, so such trials are not stopped early.

    Args:
        config: What the searcher suggested.
        ticket: The search's `JobTicket` as JSON.
        wishes: The driver's `TrialWishes`.

    Raises:
        TrialFailedError: If the training failed; its run says why.
    """
    job = JobTicket.model_validate_json(ticket)
    spec = job.spec
    assert isinstance(spec, SearchSpec)
    trial_id, values = tune.get_context().get_trial_name(), config["values"]
    runs = TrialRuns(job)
    run = runs.open(trial_id, values)
    if state_of(run) is TrialState.FAILED:
        raise TrialFailedError(run.data.tags.get(RunTag.TRIAL_REASON))
    stop = ray.remote(num_cpus=0)(StopSignal).remote()
    ray.get(wishes.pass_on.remote(trial_id, stop))
    objectives: list[dict[str, float]] = []
    path = ""
    try:
        for number in range(spec.seeds_per_trial):
            name = f"{job.job_id}-{trial_id}-seed-{number}"
            inner = job.model_copy(
                update={
                    "spec": spec.trial_spec(values, seed_offset=number),
                    "run_id": run.info.run_id
                    if number == 0
                    else runs.open_below(run, f"seed-{number}"),
                }
            )
            fitted = fit(inner, stop, name)
            path = path or fitted.checkpoint.path
            objectives.append(objectives_of(spec, fitted.outcome))
    except StoppedEarlyError as stopped:
        runs.close(run.info.run_id, TrialOutcome(TrialState.CANCELLED, str(stopped)))
        return
    except JobError as error:
        runs.close(run.info.run_id, TrialOutcome(TrialState.FAILED, f"{error.code}: {error}"))
        raise TrialFailedError(str(error)) from error
    means, errors = means_and_errors(objectives)
    runs.close(run.info.run_id, TrialOutcome(TrialState.COMPLETED, None, means, errors))
    tune.report({**means, IS_COMPLETE: True, CHECKPOINT_PATH: path})
