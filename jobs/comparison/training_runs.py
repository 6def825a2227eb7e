"""The trainings of a comparison as child runs in MLflow, the only record of them."""

from mlflow import MlflowClient
from mlflow.entities import Param, Run, RunStatus
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from jobs.child_runs import find_children
from jobs.comparison.training import Training, TrainingRecord
from jobs.tickets import JobTicket, RunTag

_LONGEST_FAILURE = 1000


class TrainingRuns:
    """The child runs of one comparison."""

    def __init__(self, ticket: JobTicket) -> None:
        self.client = MlflowClient(tracking_uri=ticket.tracking_uri)
        self.parent = self.client.get_run(ticket.run_id)
        self._job_id = ticket.job_id

    def open(self, training: Training) -> str:
        """Id of the run of a training, made on the first call."""
        found = find_children(
            self.client, self.parent, f"tags.`{RunTag.TRAINING}` = '{training.name}'"
        )
        if found:
            run = found[0]
            if run.info.status == RunStatus.to_string(RunStatus.KILLED):  # paused
                self.client.update_run(run.info.run_id, RunStatus.to_string(RunStatus.RUNNING))
            return str(run.info.run_id)
        tags = {
            MLFLOW_PARENT_RUN_ID: self.parent.info.run_id,
            RunTag.JOB_ID: self._job_id,
            RunTag.TRAINING: training.name,
        }
        run = self.client.create_run(
            self.parent.info.experiment_id, run_name=training.name, tags=tags
        )
        params = {
            "method": training.method,
            "training.learning_rate": training.learning_rate,
            "training.seed": training.seed,
        }
        self.client.log_batch(
            run.info.run_id, params=[Param(name, str(value)) for name, value in params.items()]
        )
        return str(run.info.run_id)

    def note(self, run_id: str, record: TrainingRecord) -> TrainingRecord:
        """Put what became of a training on record, and end its run.

        Returns:
            What is on record.
        """
        if record.failure:
            record = record.model_copy(update={"failure": record.failure[:_LONGEST_FAILURE]})
        self.client.set_tag(run_id, RunTag.TRAINING_RECORD, record.model_dump_json())
        self._end(run_id, RunStatus.FAILED if record.failure else RunStatus.FINISHED)
        return record

    def interrupt(self, run_id: str) -> None:
        """End the run of a training that was asked to stop; it is opened again to go on."""
        self._end(run_id, RunStatus.KILLED)

    def records(self) -> dict[str, TrainingRecord]:
        """What is on record, by the names of the trainings."""
        return {
            run.data.tags[RunTag.TRAINING]: record
            for run in find_children(self.client, self.parent)
            if RunTag.TRAINING in run.data.tags and (record := _record_of(run)) is not None
        }

    def _end(self, run_id: str, status: int) -> None:
        self.client.set_terminated(run_id, RunStatus.to_string(status))


def _record_of(run: Run) -> TrainingRecord | None:
    written = run.data.tags.get(RunTag.TRAINING_RECORD)
    return TrainingRecord.model_validate_json(written) if written else None
