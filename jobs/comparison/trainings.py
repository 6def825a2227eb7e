"""Carrying the trainings of a comparison out, and putting what becomes of them on record."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from jobs.compare_specs import CompareSpec
from jobs.comparison.places import RESTARTS, Places, Start
from jobs.comparison.schedule import due
from jobs.comparison.training import Training, TrainingRecord
from jobs.comparison.training_runs import TrainingRuns
from jobs.errors import StoppedEarlyError, WorkersLostError
from jobs.restart_notes import last_line
from jobs.stored_checkpoints import keep_adapter_alone, remove_run
from jobs.tickets import JobTicket

logger = logging.getLogger(__name__)

_LOOK_INTERVAL_S = 1.0


def run_trainings(
    ticket: JobTicket,
    runs: TrainingRuns,
    records: dict[str, TrainingRecord],
    places: Places,
    stop: ActorHandle,
    on_ended: Callable[[int], None],
) -> None:
    """Run every training that is due and not on record, and put what becomes of it there.

    Args:
        ticket: The job's.
        runs: Where the trainings are recorded.
        records: What is on record by the names of the trainings; grows.
        places: Where they run.
        stop: The driver's `StopSignal`.
        on_ended: Told how many are on record, after each.

    Raises:
        JobError: If workers cannot be placed, or died more often than they are restarted.
        StorageFullError: If there is no room for a checkpoint.
        StoppedEarlyError: If the trainings were asked to stop, and did.
    """
    _Trainings(ticket, runs, records, stop, on_ended).run(places)


@dataclass(frozen=True)
class _Running:
    training: Training
    run_id: str
    start: Start
    """What is free again afterwards."""


class _Trainings:
    """The trainings that run, and those that follow them."""

    def __init__(
        self,
        ticket: JobTicket,
        runs: TrainingRuns,
        records: dict[str, TrainingRecord],
        stop: ActorHandle,
        on_ended: Callable[[int], None],
    ) -> None:
        self._ticket = ticket
        self._runs = runs
        self._stop = stop
        self._records = records
        self._on_ended = on_ended
        self._running: dict[ObjectRef, _Running] = {}

    def run(self, places: Places) -> None:
        """Run all that are due.

        Raises:
            StoppedEarlyError: If they were asked to stop, and did.
        """
        spec = self._ticket.spec
        assert isinstance(spec, CompareSpec)
        while True:
            is_stopping = ray.get(self._stop.poll.remote())
            if is_stopping and not self._running:
                raise StoppedEarlyError(f"stopped after {len(self._records)} trainings")
            begun = {running.training.name for running in self._running.values()}
            waiting = [each for each in due(spec, self._records) if each.name not in begun]
            if not waiting and not self._running:
                return
            while waiting and places.free and not is_stopping:
                self._begin(waiting.pop(0), places.free.pop())
            refs = [*self._running, *places.opening]
            for ref in ray.wait(refs, timeout=_LOOK_INTERVAL_S)[0]:
                if ref in places.opening:
                    places.open(ref)
                else:
                    places.free.append(self._end(ref))

    def _begin(self, training: Training, start: Start) -> None:
        run_id = self._runs.open(training)
        logger.info("%s begins", training.name)
        self._running[start(training, run_id)] = _Running(training, run_id, start)

    def _end(self, ref: ObjectRef) -> Start:
        """Put what became of a training on record; gives back where it ran."""
        ended = self._running.pop(ref)
        record = _answer_of(ref, ended.training)
        if record is None:
            self._runs.interrupt(ended.run_id)
            return ended.start
        name, folder = ended.training.name, ended.training.folder_of(self._ticket.job_id)
        self._records[name] = self._runs.note(ended.run_id, record)
        if record.checkpoint is None:
            remove_run(self._ticket.storage_path, folder)
        else:
            keep_adapter_alone(self._ticket.storage_path, folder, record.checkpoint)
        logger.info("%s ends: %s", name, record.failure or f"loss {record.eval_loss}")
        self._on_ended(len(self._records))
        return ended.start


def _answer_of(ref: ObjectRef, training: Training) -> TrainingRecord | None:
    try:
        return ray.get(ref)
    except RayActorError as error:
        raise WorkersLostError(
            f"the process of {training.name} died {RESTARTS + 1} times; the job's log shows why: "
            f"{last_line(str(error))}"
        ) from error
    except RayTaskError as error:  # what the training itself has raised
        raise error.cause from error
