"""One trial of a search: the function that Ray Tune runs in an actor, trial after trial.

What an actor has loaded stays in it: the next trial finds the base model and the rows in memory.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import ray
import torch
from ray import tune
from ray.actor import ActorHandle
from transformers.utils.logging import disable_progress_bar

from jobs.distributed import task_of
from jobs.search_space import Value
from jobs.search_specs import SearchSpec
from jobs.stop_signal import StopListener
from jobs.tickets import JobTicket, RunTag, TrialState
from jobs.tracking import RunWriter
from jobs.tuning.objectives import means_and_errors, objectives_of
from jobs.tuning.schedulers import STEP
from jobs.tuning.trial_questions import TrialQuestions
from jobs.tuning.trial_reporter import IS_COMPLETE, FurtherSeedReporter, TrialReporter
from jobs.tuning.trial_runs import TrialOutcome, TrialRuns, state_of
from workers.errors import WorkerError
from workers.train_loop import TrainResult, train
from workers.train_setup import TrainSetup, TrainTask
from workers.warm_start import SharedRows, WarmStart

logger = logging.getLogger(__name__)

_warm: dict[str, WarmStart] = {}
"""What this process keeps between trials, under the id of its search."""

_questions: dict[str, TrialQuestions] = {}
"""Likewise."""


class TrialFailedError(Exception):
    """A trial met a failure that another attempt would only repeat."""


def run_trial(
    config: Mapping[str, Any], *, ticket: str, rows: SharedRows, wishes: ActorHandle
) -> None:
    """Train one trial to its end, to where the scheduler stops it, or to where the user does.

    Args:
        config: What the searcher suggested.
        ticket: The search's `JobTicket` as JSON.
        rows: What every trial reads.
        wishes: The driver's `TrialWishes`.

    Raises:
        TrialFailedError: If the training failed; its run says why.
    """
    began = time.perf_counter()
    disable_progress_bar()
    job = JobTicket.model_validate_json(ticket)
    spec = job.spec
    assert isinstance(spec, SearchSpec)
    torch.set_num_threads(spec.resources.cpus_per_worker)
    if job.job_id not in _warm:
        _warm[job.job_id] = WarmStart(rows)
    warm = _warm[job.job_id]
    # Not from its number: in a population, trials go on with copies of others' configurations.
    trial_id, values = tune.get_context().get_trial_name(), config["values"]
    runs = TrialRuns(job)
    run = runs.open(trial_id, values)
    if state_of(run) is TrialState.FAILED:  # Ray Tune tries again what died; this did not
        raise TrialFailedError(run.data.tags.get(RunTag.TRIAL_REASON))
    writer = RunWriter(runs.client, run.info.run_id)
    listener = StopListener(partial(wishes.is_cancelled.remote, trial_id))
    reporter = TrialReporter(writer, listener, began)
    trial = _Trial(job, spec, values, warm, writer, listener, reporter)
    outcome: TrialOutcome | None = None
    try:
        outcome = trial.run()
    except WorkerError as error:
        outcome = TrialOutcome(TrialState.FAILED, f"{error.code}: {error}")
    except SystemExit:  # raised by Ray Tune where it takes a report in
        outcome = trial.early_end()
        raise
    finally:  # without an outcome, Ray Tune tries the trial again, or gives it up
        warm.release()
        listener.close()
        writer.close()
        if outcome is not None:
            runs.close(run.info.run_id, outcome)
    if outcome.state is TrialState.FAILED:
        raise TrialFailedError(outcome.reason)
    if outcome.state is TrialState.COMPLETED:
        tune.report(reporter.result | dict(outcome.objectives or {}) | {IS_COMPLETE: True})


class _Trial:
    """The trainings of one trial."""

    def __init__(
        self,
        job: JobTicket,
        spec: SearchSpec,
        values: Mapping[str, Value],
        warm: WarmStart,
        writer: RunWriter,
        listener: StopListener,
        reporter: TrialReporter,
    ) -> None:
        self._job = job
        self._spec = spec
        self._values = values
        self._warm = warm
        self._writer = writer
        self._listener = listener
        self._device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
        self.reporter = reporter

    def run(self) -> TrialOutcome:
        """Train with every seed.

        Raises:
            WorkerError: If a training fails.
        """
        objectives: list[dict[str, float]] = []
        for number in range(self._spec.seeds_per_trial):
            reporter = (
                FurtherSeedReporter(number, self._writer, self._listener)
                if number
                else self.reporter
            )
            result, of_tasks = self._train(number, reporter)
            if not result.is_complete:
                step = f"after step {result.steps} of {result.total_steps}"
                return TrialOutcome(TrialState.CANCELLED, f"cancelled by a user {step}")
            if of_tasks is None:
                return TrialOutcome(
                    TrialState.CANCELLED, "cancelled by a user while it was asked its tasks"
                )
            objectives.append(objectives_of(self._spec, asdict(result), of_tasks))
        means, errors = means_and_errors(objectives)
        return TrialOutcome(TrialState.COMPLETED, None, means, errors)

    def early_end(self) -> TrialOutcome:
        """What to record where Ray Tune ends the trial."""
        result, metric = self.reporter.result, str(self._spec.objectives[0].metric)
        by = self._spec.algorithm.early_stopping or "the search"
        at = f" at {metric} {result[metric]:.4g}" if metric in result else ""
        return TrialOutcome(
            TrialState.STOPPED, f"stopped by {by} after step {result.get(STEP, 0)}{at}"
        )

    def _train(
        self, seed_number: int, reporter: TrialReporter | FurtherSeedReporter
    ) -> tuple[TrainResult, Mapping[str, float] | None]:
        """What the training came to, and what its answers did; None where these are not whole."""
        spec = self._spec.trial_spec(self._values, seed_offset=seed_number)
        try:
            task = task_of(spec, self._job.files)
            if self._spec.algorithm.population_interval:
                # Trials go on from each other's checkpoints, with other settings.
                task = replace(task, identity=self._job.job_id)
            result = train(task, reporter, self._device, self._prepare)
            return result, self._of_tasks() if result.is_complete else None
        finally:
            self._warm.release()

    def _of_tasks(self) -> Mapping[str, float] | None:
        if not self._spec.tasks:
            return {}
        if self._job.job_id not in _questions:
            _questions[self._job.job_id] = TrialQuestions(self._spec, self._job.files)
        with self._warm.answering() as model:
            return _questions[self._job.job_id].ask(model, self.reporter.stop_requested)

    def _prepare(self, task: TrainTask, device: torch.device) -> TrainSetup:
        setup = self._warm.prepare(task, device)
        if not self.reporter.result:  # further seeds are trainings of the same trial
            trainable = (p for p in setup.model.parameters() if p.requires_grad)
            self.reporter.ready(sum(p.numel() for p in trainable))
        return setup
