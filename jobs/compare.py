"""The comparison driver: Ray trains every method alike and asks all of them the same questions.

Run as `python -m jobs.compare` by Ray's Jobs API, with its ticket in the environment. Everything
that is done is on record in MLflow and on storage, so that the next attempt goes on from there.
"""

import logging
import sys
from contextlib import closing
from functools import partial

import ray
from ray.actor import ActorHandle

from jobs.cluster import connect
from jobs.compare_plan import plan
from jobs.compare_report.report import build_report
from jobs.compare_specs import CompareSpec
from jobs.comparison.places import Places
from jobs.comparison.progress import CompareProgress
from jobs.comparison.publishing import publish_adapters, publish_report, summary
from jobs.comparison.schedule import Conclusion, conclude, due
from jobs.comparison.scores import method_results, task_scores
from jobs.comparison.training import TrainingRecord
from jobs.comparison.training_runs import TrainingRuns
from jobs.comparison.trainings import run_trainings
from jobs.distributed import task_of
from jobs.entrypoint import run_driver
from jobs.errors import NoMethodCompletedError
from jobs.evaluation.asked import Asked
from jobs.evaluation.asking import ask
from jobs.model_specs import BASE
from jobs.placement import judge_placement, live_nodes
from jobs.ray_reporter import RayReporter
from jobs.stop_signal import StopSignal, pass_on_sigterm
from jobs.tickets import JobTicket, RunTag
from jobs.tracking import RunWriter
from jobs.tuning.capacity import Capacity, gpu_bytes, plan_trainings
from workers.errors import BaseModelNotFoundError
from workers.mlflow_download import pin
from workers.predictions import Mode, Prediction
from workers.preview import preview
from workers.train_setup import TrainTask
from workers.warm_start import SharedRows

logger = logging.getLogger(__name__)

_MODES: tuple[Mode, ...] = ("generation", "gold")
_MOST_WORKERS = 64


def compare(ticket: JobTicket) -> None:
    """Train, ask, judge, and publish what is found.

    Raises:
        ResourcesUnavailableError: If the cluster can never hold a training or an evaluation.
        NoMethodCompletedError: If no method trained to its end with all its seeds.
        WorkersLostError: If a process died more often than it is started again.
        WorkerError: If the rows or the base model cannot be used by any training.
        StoppedEarlyError: If the comparison was asked to stop, and did.
    """
    connect(
        ticket,
        MLFLOW_TRACKING_URI=ticket.tracking_uri,
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    )
    stop = ray.remote(num_cpus=0)(StopSignal).remote()
    pass_on_sigterm(stop)
    runs = TrainingRuns(ticket)
    ticket = _with_pinned_base(ticket, runs)
    spec = ticket.spec
    assert isinstance(spec, CompareSpec)
    with closing(RunWriter(runs.client, ticket.run_id)) as writer:
        progress = CompareProgress(writer, plan(spec))
        records = _train(ticket, spec, runs, writer, progress, stop)
        concluded = conclude(spec, records)
        if not concluded.trained:
            raise NoMethodCompletedError(_why_none(concluded))
        models = publish_adapters(ticket, runs, records, concluded.kept)
        answers, golds = _ask(ticket, spec, models, progress, stop)
    results = method_results(spec, records, concluded, task_scores(answers, golds))
    report = build_report(spec, results, concluded.missing)
    publish_report(ticket, report, [*answers, *golds])
    logger.info("%s", summary(report))


def _with_pinned_base(ticket: JobTicket, runs: TrainingRuns) -> JobTicket:
    """The ticket with a version in place of an alias, which could move between two attempts."""
    spec = ticket.spec
    assert isinstance(spec, CompareSpec)
    base_model = runs.parent.data.tags.get(RunTag.BASE_MODEL)
    if base_model is None:
        base_model = pin(spec.base_model, "base_model", BaseModelNotFoundError)
        runs.client.set_tag(ticket.run_id, RunTag.BASE_MODEL, base_model)
    return ticket.model_copy(update={"spec": spec.model_copy(update={"base_model": base_model})})


def _train(
    ticket: JobTicket,
    spec: CompareSpec,
    runs: TrainingRuns,
    writer: RunWriter,
    progress: CompareProgress,
    stop: ActorHandle,
) -> dict[str, TrainingRecord]:
    """Run the trainings that are not on record; returns what is on record of all."""
    records = runs.records()
    progress.trained(len(records))
    waiting = due(spec, records)
    if not waiting:
        return records
    first = waiting[0]
    sample = spec.training_spec(first.method, first.learning_rate, first.seed)
    task = task_of(sample, ticket.files)
    rows = SharedRows.read(task)
    RayReporter(writer, None).data_report(rows.report)
    capacity = _capacity(spec, task)
    logger.info("%d trainings at a time, each with %s", capacity.num_trials, capacity.bundle)
    with closing(Places(ticket, capacity, rows, stop)) as places:
        run_trainings(ticket, runs, records, places, stop, progress.trained)
    return records


def _capacity(spec: CompareSpec, task: TrainTask) -> Capacity:
    nodes = live_nodes()
    memory = preview(task, 1, judge_placement(spec.resources, nodes).device).memory
    return plan_trainings(spec.resources, nodes, memory.total if memory else None, gpu_bytes())


def _ask(
    ticket: JobTicket,
    spec: CompareSpec,
    adapters: dict[str, str],
    progress: CompareProgress,
    stop: ActorHandle,
) -> list[list[Prediction]]:
    """Ask every model all questions, and how likely it finds the gold answers."""
    has_base = any(method.is_base for method in spec.methods)
    models = {**({BASE: None} if has_base else {}), **adapters}
    num_places = plan_trainings(spec.resources, live_nodes()).num_trials
    num_workers = min(_MOST_WORKERS, num_places * spec.resources.fewest_workers)
    resources = spec.resources.model_copy(update={"num_workers": num_workers})
    predictions = []
    for number, mode in enumerate(_MODES):
        asked = Asked(
            base_model=spec.base_model,
            models=models,
            tasks=spec.tasks,
            files=ticket.files,
            mode=mode,
            dtype=spec.training.dtype,
            max_new_tokens=spec.max_new_tokens,
            batch_rows=spec.batch_rows,
            chat_template=spec.data.chat_template,
        )
        folder = f"{ticket.storage_path}/{ticket.job_id}-answers"
        on_progress = partial(progress.asked, passes_before=number, num_passes=len(_MODES))
        predictions.append(ask(asked, folder, resources, stop, on_progress))
    return predictions


def _why_none(concluded: Conclusion) -> str:
    reasons = "; ".join(f"{method}: {reason}" for method, reason in concluded.missing.items())
    return f"no method trained to its end with all its seeds: {reasons}"


if __name__ == "__main__":
    sys.exit(run_driver(compare))
