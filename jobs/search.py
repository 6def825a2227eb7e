"""The search driver: Ray Tune tries values of the searched fields, MLflow gets trials and winner.

Run as `python -m jobs.search` by Ray's Jobs API, with its ticket in the environment.
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence

import ray
from mlflow import MlflowClient
from ray import tune
from ray.actor import ActorHandle
from ray.tune import CheckpointConfig, FailureConfig, ResultGrid, RunConfig, TuneConfig, Tuner

from jobs.cluster import connect
from jobs.distributed import task_of
from jobs.entrypoint import run_driver
from jobs.errors import NoTrialCompletedError, StoppedEarlyError
from jobs.evaluation.questions import read_tasks
from jobs.placement import judge_placement, live_nodes
from jobs.ray_reporter import RayReporter
from jobs.search_report.trial_table import TrialRecord, rank
from jobs.search_specs import SearchSpec
from jobs.stop_signal import StopSignal, pass_on_sigterm
from jobs.tickets import JobTicket, RunTag, TrialState
from jobs.tracking import RunWriter
from jobs.tuning.budget import BudgetStopper
from jobs.tuning.capacity import Capacity, gpu_bytes, plan_trials
from jobs.tuning.nested_trial import run_nested_trial
from jobs.tuning.progress import SearchProgress
from jobs.tuning.publishing import publish_report, register_refit, register_trials
from jobs.tuning.records import close_open_runs, read_records
from jobs.tuning.schedulers import domains, make_scheduler
from jobs.tuning.searchers import make_search_algorithm
from jobs.tuning.sharing import QueueWatch
from jobs.tuning.trial import run_trial
from jobs.tuning.trial_runs import TrialRuns, state_of
from jobs.tuning.wishes import TrialWishes, WishReader
from workers.preview import preview
from workers.specs import RunMetric
from workers.warm_start import SharedRows

logger = logging.getLogger(__name__)

_TRIAL_RESTARTS = 1
TUNE_VARIABLES = {
    # Trials that have not evaluated yet report checkpoints without an objective.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # MLflow keeps what these would write once more.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A trial that is stopped has its last metrics to send before the next may have its process.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # A snapshot at each checkpoint is wanted: a driver that dies loses none.
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment of a search's driver and trials."""


def search(ticket: JobTicket) -> None:
    """Try, compare, and register what is best.

    Raises:
        ResourcesUnavailableError: If the cluster can never hold a trial, or as many as are wished.
        NoTrialCompletedError: If no trial trained to its end.
        WorkerError: If the rows or the base model cannot be used by any trial.
        StoppedEarlyError: If the search was asked to stop, and did.
    """
    spec = ticket.spec
    assert isinstance(spec, SearchSpec)
    connect(ticket, **TUNE_VARIABLES)
    stop = ray.remote(num_cpus=0)(StopSignal).remote()
    pass_on_sigterm(stop)
    runs = TrialRuns(ticket)
    is_nested = spec.resources.most_workers > 1
    results = run_trials(ticket, spec, runs, is_nested=is_nested)
    if ray.get(stop.poll.remote()):
        raise StoppedEarlyError(f"stopped; {len(results)} trials have begun")
    close_open_runs(runs, results, "the search ended first: its budget is used up")
    records = read_records(runs, spec)
    publish_report(ticket, spec, records, time.time() - runs.started_at)
    ranked = rank(records, spec.objectives)
    if not ranked:
        raise NoTrialCompletedError(_why_none(records))
    version = register_trials(ticket, spec, ranked[: spec.register_best], results)
    if spec.refit:
        version = register_refit(ticket, spec, ranked[0], stop)
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    client.set_tag(ticket.run_id, RunTag.MODEL_NAME, version.name)
    client.set_tag(ticket.run_id, RunTag.MODEL_VERSION, version.version)
    logger.info("registered %s version %s", version.name, version.version)


def run_trials(
    ticket: JobTicket, spec: SearchSpec, runs: TrialRuns, *, is_nested: bool
) -> ResultGrid:
    """Run the trials that the budget allows, going on where an earlier attempt ended.

    Args:
        ticket: The job's.
        spec: Its spec.
        runs: Where trials are recorded.
        is_nested: Whether each trial starts a worker group of its own, as one of several workers
            must; others share processes that stay warm.

    Raises:
        ResourcesUnavailableError: If the cluster can never hold a trial, or as many as are wished.
        WorkerError: If the rows or the base model cannot be used by any trial.
    """
    sample_spec = spec.trial_spec({})
    sample = task_of(sample_spec, ticket.files)
    read_tasks(spec.tasks, ticket.files)  # a row that no trial could use fails the search at once
    rows = SharedRows.read(sample)
    _tell_of_rows(ticket, rows, spec.num_trials)
    nodes, size = live_nodes(), gpu_bytes()
    device = judge_placement(sample_spec.resources, nodes).device
    memory = preview(sample, 1, device).memory
    capacity = plan_trials(spec, nodes, memory.total if memory else None, size)
    logger.info("%d trials at a time, each with %s", capacity.num_trials, capacity.bundle)
    BudgetStopper.gpu_seconds_before = _gpu_seconds(runs, capacity)
    wishes = ray.remote(num_cpus=0)(TrialWishes).remote()
    reader = WishReader(ticket, wishes)
    queue = QueueWatch()
    trainable = (
        _nested_trainable(ticket, wishes)
        if is_nested
        else _warm_trainable(ticket, capacity, rows, wishes)
    )
    path = f"{ticket.storage_path}/{ticket.job_id}"
    try:
        if Tuner.can_restore(path):
            logger.info("going on with the trials of an earlier attempt")
            return Tuner.restore(path, trainable).fit()
        return Tuner(
            trainable,
            param_space={"values": domains(spec)} if spec.algorithm.population_interval else None,
            tune_config=TuneConfig(
                num_samples=spec.num_trials,
                search_alg=make_search_algorithm(spec, capacity.num_trials),
                scheduler=make_scheduler(spec),
                reuse_actors=not is_nested,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=RunConfig(
                name=ticket.job_id,
                storage_path=ticket.storage_path,
                stop=BudgetStopper(spec.budget, capacity.bundle.get("GPU", 0.0), runs.started_at),
                failure_config=FailureConfig(max_failures=_TRIAL_RESTARTS),
                checkpoint_config=CheckpointConfig(num_to_keep=spec.training.kept_checkpoints),
                callbacks=[SearchProgress(ticket)],
                verbose=0,
            ),
        ).fit()
    finally:
        reader.close()
        queue.close()


def _warm_trainable(
    ticket: JobTicket, capacity: Capacity, rows: SharedRows, wishes: ActorHandle
) -> object:
    """What Ray Tune runs for each trial, with what it reserves."""
    document = ticket.model_dump_json()
    warm = tune.with_parameters(run_trial, ticket=document, rows=rows, wishes=wishes)
    return tune.with_resources(warm, capacity.bundle)


def _nested_trainable(ticket: JobTicket, wishes: ActorHandle) -> object:
    """As that, for trials whose workers reserve what they need."""
    document = ticket.model_dump_json()
    nested = tune.with_parameters(run_nested_trial, ticket=document, wishes=wishes)
    # A launcher that held CPUs could keep them from its own workers.
    return tune.with_resources(nested, {"memory": 1e6})


def _trial_name(trial: "tune.experiment.Trial") -> str:
    number = trial.config.get("number")
    if number is None:  # a member of a population, whose ids count from 0
        number = int(trial.trial_id.rpartition("_")[2]) + 1
    return f"trial-{number:04}"


def _tell_of_rows(ticket: JobTicket, rows: SharedRows, num_trials: int) -> None:
    writer = RunWriter(MlflowClient(tracking_uri=ticket.tracking_uri), ticket.run_id)
    RayReporter(writer, None).data_report(rows.report)
    writer.write(0, {RunMetric.STEP: 0, RunMetric.TOTAL_STEPS: num_trials})
    writer.close()


def _gpu_seconds(runs: TrialRuns, capacity: Capacity) -> float:
    """GPU time of the trials that have ended."""
    ended = [run.info for run in runs.all() if state_of(run) is not TrialState.RUNNING]
    milliseconds = sum((info.end_time or info.start_time) - info.start_time for info in ended)
    return capacity.bundle.get("GPU", 0.0) * milliseconds / 1000


def _why_none(records: Sequence[TrialRecord]) -> str:
    counts: Mapping[str, int] = {
        state: sum(record.state is state for record in records) for state in TrialState
    }
    told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    reason = next((record.reason for record in records if record.reason), "see the job's log")
    return f"no trial trained to its end ({told or 'none began'}); the first: {reason}"


if __name__ == "__main__":
    sys.exit(run_driver(search))
