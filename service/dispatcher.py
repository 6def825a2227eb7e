"""Puts waiting jobs on the Ray cluster, a bounded number at a time.

Every step can be repeated, so a dispatcher that dies between any two is taken up by the next: the
job is claimed before anything exists outside, its MLflow run is looked for by tag before one is
made, and the driver's submission id is taken at most once.
"""

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from jobs.specs import JobSpec, file_ids
from jobs.tickets import TICKET_VARIABLE, JobTicket, RunTag
from service.boundaries import DriverRequest, Drivers, RunRef, Runs, RunStatus
from service.errors import DriverNotStartedError, MissingFileError, RefusedError
from service.files import Files
from service.leases import LeaseLostError
from service.led_jobs import LedJobs
from service.settings import ServiceSettings
from service.states import JobStatus
from service.tables import Job
from workers.specs import FailureCode

logger = logging.getLogger(__name__)

_PATIENCE_S = 300.0
"""A Ray that answers, and starts a job's driver at no attempt for so long, will not by itself; one
that has just started may take a minute."""

_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)


class Dispatcher:
    """Moves jobs from the queue to the cluster, oldest first."""

    def __init__(
        self, settings: ServiceSettings, jobs: LedJobs, files: Files, drivers: Drivers, runs: Runs
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._files = files
        self._drivers = drivers
        self._runs = runs
        self._failing_since: dict[str, float] = {}

    async def dispatch_waiting(self) -> None:
        """Submit what waits and fits.

        Raises:
            LeaseLostError: If another replica does so by now.
            UnavailableError: If Ray or MLflow is away; what was not submitted waits on.
        """
        waiting = await self._jobs.awaiting_driver(self._settings.max_live_drivers)
        ids = {job.id for job in waiting}
        self._failing_since = {
            job_id: since for job_id, since in self._failing_since.items() if job_id in ids
        }
        if not waiting:
            return
        # Both must be there before a job is touched: until then the user can cancel it at once.
        await self._drivers.ping()
        await self._runs.ping()
        for job in waiting:
            await self._dispatch(job.id)

    async def _dispatch(self, job_id: str) -> None:
        job = await self._jobs.claim(job_id, self._settings.max_live_drivers)
        if job is None:
            return
        try:
            await self._submit(job)
        except MissingFileError as error:
            await self._fail(job, FailureCode.DATA_INVALID, str(error))
        except RefusedError as error:
            await self._fail(job, FailureCode.INTERNAL, str(error))
        except DriverNotStartedError as error:
            await self._wait_or_fail(job, str(error))

    async def _wait_or_fail(self, job: Job, trouble: str) -> None:
        """Leave a job for the next round, unless Ray has failed to start it for too long."""
        now = time.monotonic()
        if job.id not in self._failing_since:
            logger.warning("%s is tried again: %s", job.id, trouble)
        if now - self._failing_since.setdefault(job.id, now) >= _PATIENCE_S:
            reason = f"Ray answers, but has not started the job for {_PATIENCE_S:.0f} s: {trouble}"
            await self._fail(job, FailureCode.INTERNAL, reason)

    async def _submit(self, job: Job) -> None:
        spec = _SPEC.validate_python(job.spec)
        files = await self._files.refs(set(file_ids(spec).values()))
        entrypoint = f"{self._settings.driver_python} -m jobs.{job.kind}"
        run = await self._open_run(job, entrypoint)
        ticket = JobTicket(
            job_id=job.id,
            attempt=job.attempt,
            run_id=run.run_id,
            tracking_uri=self._settings.mlflow_tracking_uri,
            storage_path=self._settings.storage_path,
            start_deadline_s=self._settings.start_deadline_s,
            spec=spec,
            reach=self._settings.reach,
            files=files,
        )
        document = ticket.model_dump(mode="json", exclude={"attempt", "reach"})
        await self._runs.describe(run.run_id, run_parameters(job), document)
        try:
            job = await self._jobs.note_run(job.id, run)
        except LeaseLostError:
            await self._discard_own_run(job.id)
            raise
        if job.status.is_stopping or job.is_over(ticket.attempt):
            return
        submission_id = job.submission_id
        await self._drivers.submit(
            DriverRequest(
                submission_id=submission_id,
                entrypoint=entrypoint,
                environment={
                    TICKET_VARIABLE: ticket.model_dump_json(),
                    "MLFLOW_TRACKING_URI": self._settings.mlflow_tracking_uri,
                    # A driver that is stopped writes a last checkpoint and ends by itself; one
                    # that takes longer than this is killed.
                    "RAY_JOB_STOP_SIGNAL": "SIGTERM",
                    "RAY_JOB_STOP_WAIT_TIME_S": str(self._settings.stop_grace_s),
                },
                metadata={"job_id": job.id, "name": job.name, "kind": job.kind},
            )
        )
        job = await self._jobs.note_submission(job.id, ticket.attempt)
        logger.info("submitted %s", submission_id)
        if job.is_over(ticket.attempt):
            # Another replica took over in the meantime, saw no driver and gave the attempt up.
            await self._drivers.stop(submission_id)

    async def _open_run(self, job: Job, entrypoint: str) -> RunRef:
        known = await self._runs.read(job.run_id) if job.run_id else None
        known = known or await self._runs.find(job.id)
        if known is None:
            return await self._runs.create(job.id, job.name, entrypoint, run_tags(job))
        if known.status is not RunStatus.RUNNING:
            await self._runs.set_status(known.ref.run_id, RunStatus.RUNNING)
        return known.ref

    async def _discard_own_run(self, job_id: str) -> None:
        """Leave the job to the replica that leads, with the run that it has given it."""
        run_id = (await self._jobs.get(job_id)).run_id
        if run_id is not None:
            await self._runs.discard_doubles(job_id, run_id)

    async def _fail(self, job: Job, code: FailureCode, message: str) -> None:
        logger.error("%s cannot be submitted: %s", job.id, message)
        try:
            run = await self._runs.find(job.id)
            if run is not None and not run.status.is_ended:
                await self._runs.end(run.ref.run_id, RunStatus.FAILED)
        except RefusedError:
            logger.exception("the run of %s stays open", job.id)
        failure = {"code": code, "message": message, "log_tail": None}
        await self._jobs.end(job.id, job.attempt, JobStatus.FAILED, reason=message, failure=failure)


def run_tags(job: Job) -> dict[str, str]:
    """What an MLflow run says of its job that has nothing to do with what is trained."""
    tags = {
        RunTag.PROJECT: job.project,
        RunTag.TAGS: ", ".join(job.tags),
        RunTag.PRIORITY: str(job.priority),
    }
    facts = {f"{RunTag.METADATA}.{key}": value for key, value in job.facts.items()}
    return {key: value for key, value in (tags | facts).items() if value}


def run_parameters(job: Job) -> dict[str, str]:
    """A job's spec as MLflow parameters, without what its tags say."""
    said = {"tags", "metadata", "priority"}
    return flatten({key: value for key, value in job.spec.items() if key not in said})


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested document as MLflow parameters: {"adapter.r": "8", …}; lists as JSON."""
    flat: dict[str, str] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, list):
            flat[name] = json.dumps(value)
        else:
            flat[name] = str(value)
    return flat
