"""Compares every job on the cluster with Ray and MLflow, and advances its record.

After submission this is the only writer of a status. `decide` is a pure function from what is seen
to what is to be done; the rest only looks and acts. What is done outside comes before the record
of it and can be repeated, so a reconciler may die at any point.
"""

import asyncio
import logging
from dataclasses import dataclass

from jobs.tickets import RunTag
from service.boundaries import DriverReport, Drivers, DriverState, RunReport, Runs, RunStatus
from service.errors import MlflowUnavailableError, RefusedError, UnavailableError
from service.leases import LeaseLostError
from service.led_jobs import LedJobs
from service.progress import is_due, progress_of, stopping_point
from service.states import JobStatus
from service.tables import Job, utc_now
from workers.specs import FailureCode

logger = logging.getLogger(__name__)

_LINGER_S = 60.0
"""A driver that recorded its outcome this long ago hangs in its teardown, or died unnoticed."""
_REGISTERING_KINDS = {"finetune", "search"}
"""Kinds that are done once an adapter is registered; others, once they have summed up."""
_LOG_TAIL_LINES = 40
_LOG_TAIL_CHARS = 20_000


@dataclass(frozen=True)
class Observation:
    """Everything that a decision rests on."""

    kind: str
    status: JobStatus
    attempt: int
    paused_attempt: int
    max_attempts: int
    driver: DriverReport
    run: RunReport | None


@dataclass(frozen=True)
class Wait:
    """Leave the job as it is."""


@dataclass(frozen=True)
class StopDriver:
    """Ask Ray to end the driver, and look again."""


@dataclass(frozen=True)
class ModelRef:
    """A version of a registered model."""

    name: str
    version: str


@dataclass(frozen=True)
class Succeed:
    """The driver has recorded what it was started for."""

    model: ModelRef | None = None
    """The adapter that it registered."""

    summary: str | None = None
    """What it found, on one line."""


@dataclass(frozen=True)
class Fail:
    """Another attempt would not help."""

    code: str
    message: str


@dataclass(frozen=True)
class Cancel:
    """The driver is gone, as the user wished."""


@dataclass(frozen=True)
class Pause:
    """The driver is gone, until the user resumes the job."""


@dataclass(frozen=True)
class Retry:
    """The driver is gone and left no result."""

    reason: str
    is_counted: bool = True
    """Whether the attempt is one of those that a job has; an outage of Ray's takes none."""


Action = Wait | StopDriver | Succeed | Fail | Cancel | Pause | Retry


def decide(seen: Observation) -> Action:
    """What to do about a job that was submitted.

    What the driver recorded decides, whatever became of its process afterwards; a failure wins
    over a result. Without a record, a driver that is gone is tried again.
    """
    outcome = _recorded_outcome(seen.kind, seen.run)
    if seen.driver.state.is_live:
        is_hung = outcome and seen.run and seen.run.seconds_since_end > _LINGER_S
        return StopDriver() if seen.status.is_stopping or is_hung else Wait()
    if outcome:
        return outcome
    if seen.status is JobStatus.CANCELLING:
        return Cancel()
    if seen.status is JobStatus.PAUSING:
        return Pause()
    reason = _describe_loss(seen)
    if seen.driver.state is DriverState.UNKNOWN:
        return Retry(reason, is_counted=False)
    num_attempts = seen.attempt - seen.paused_attempt
    if num_attempts < seen.max_attempts:
        return Retry(reason)
    return Fail(
        FailureCode.DRIVER_LOST,
        f"{reason}; that was the last of {num_attempts} attempts, see the end of the job's log",
    )


def _recorded_outcome(kind: str, run: RunReport | None) -> Succeed | Fail | None:
    tags = run.tags if run else {}
    if code := tags.get(RunTag.FAILURE_CODE):
        return Fail(code, tags.get(RunTag.FAILURE_MESSAGE) or "the driver gave no reason")
    summary = tags.get(RunTag.SUMMARY)
    if kind not in _REGISTERING_KINDS:
        return Succeed(summary=summary) if summary else None
    name, version = tags.get(RunTag.MODEL_NAME), tags.get(RunTag.MODEL_VERSION)
    return Succeed(ModelRef(name, version), summary) if name and version else None


def _describe_loss(seen: Observation) -> str:
    if seen.driver.state is DriverState.UNKNOWN:
        return f"Ray has lost the driver of attempt {seen.attempt}, as a restarted head node does"
    what = f"the driver of attempt {seen.attempt} ended as {seen.driver.state} without a result"
    return f"{what} ({seen.driver.message})" if seen.driver.message else what


class Reconciler:
    """Carries out what `decide` says, for all jobs at once."""

    def __init__(self, max_attempts: int, jobs: LedJobs, drivers: Drivers, runs: Runs) -> None:
        self._max_attempts = max_attempts
        self._jobs = jobs
        self._drivers = drivers
        self._runs = runs
        self.num_behind = 0
        """Jobs that could not be looked at, of the last round."""

    async def reconcile(self) -> None:
        """Look at every submitted job once; trouble with one does not hold up the others.

        Raises:
            LeaseLostError: If another replica looks after them by now.
            UnavailableError: If Ray or MLflow is away; the jobs concerned stay as they are.
        """
        jobs = await self._jobs.submitted()
        results = await asyncio.gather(*map(self._reconcile, jobs), return_exceptions=True)
        self.num_behind = sum(isinstance(result, Exception) for result in results)
        outage: UnavailableError | None = None
        for job, error in zip(jobs, results, strict=True):
            if isinstance(error, UnavailableError):
                outage = error
            elif isinstance(error, LeaseLostError):
                raise error
            elif isinstance(error, Exception):
                logger.error("cannot reconcile %s", job.id, exc_info=error)
            elif error is not None:
                raise error
        if outage is not None:
            raise outage

    async def _reconcile(self, job: Job) -> None:
        seen = await self._observe(job)
        await self._note_data(job, seen.run)
        await self._note_restarts(job, seen.run)
        match decide(seen):
            case Wait():
                await self._note_progress(job, seen.run)
            case StopDriver():
                await self._drivers.stop(job.submission_id)
            case Retry(reason, is_counted):
                logger.warning("%s: %s", job.id, reason)
                await self._keep_log(job, seen.run)
                await self._jobs.retry(job.id, job.attempt, reason, is_counted=is_counted)
            case Pause():
                await self._pause(job, seen.run)
            case Cancel():
                await self._end(job, seen.run, JobStatus.CANCELLED, _stopping_point(seen.run))
            case Fail(_, message) as outcome:
                await self._end(job, seen.run, JobStatus.FAILED, message, failed=outcome)
            case Succeed(_, summary) as outcome:
                await self._end(job, seen.run, JobStatus.SUCCEEDED, summary, succeeded=outcome)

    async def _observe(self, job: Job) -> Observation:
        # The driver first: once it has ended, what it recorded is there to be read.
        driver = await self._drivers.report(job.submission_id)
        try:
            run = await (self._runs.read(job.run_id) if job.run_id else self._runs.find(job.id))
        except MlflowUnavailableError:
            if driver.state.is_live and job.status.is_stopping:
                # Nothing in MLflow could change that, and its workers may be wanted elsewhere.
                await self._drivers.stop(job.submission_id)
            raise
        return Observation(
            job.kind,
            job.status,
            job.attempt,
            job.paused_attempt,
            self._max_attempts,
            driver,
            run,
        )

    async def _note_data(self, job: Job, run: RunReport | None) -> None:
        summary = run.tags.get(RunTag.DATA_SUMMARY) if run else None
        if run and summary and job.data_summary is None:
            level = run.tags.get(RunTag.DATA_LEVEL, "info")
            await self._jobs.note_data(job.id, summary, level)

    async def _note_restarts(self, job: Job, run: RunReport | None) -> None:
        tags = run.tags if run else {}
        reasons = [tags[key] for key in sorted(tags) if key.startswith(f"{RunTag.RESTART}.")]
        if len(reasons) > job.num_restarts:
            await self._jobs.note_restarts(job.id, reasons)

    async def _note_progress(self, job: Job, run: RunReport | None) -> None:
        progress = progress_of(job.kind, run)
        if progress and is_due(job, progress, utc_now()):
            await self._jobs.note_progress(job.id, progress)

    async def _pause(self, job: Job, run: RunReport | None) -> None:
        await self._keep_log(job, run)
        if run:
            await self._runs.set_status(run.ref.run_id, RunStatus.SCHEDULED)
        progress = progress_of(job.kind, run)
        await self._jobs.note_pause(job.id, job.attempt, _stopping_point(run), progress)
        logger.info("%s is paused", job.id)

    async def _end(
        self,
        job: Job,
        run: RunReport | None,
        status: JobStatus,
        reason: str | None = None,
        failed: Fail | None = None,
        succeeded: Succeed | None = None,
    ) -> None:
        log = await self._keep_log(job, run)
        if run:
            if not run.status.is_ended:
                await self._runs.end(run.ref.run_id, _RUN_STATUS[status])
            await self._discard_doubles(job, run)
        await self._jobs.end(
            job.id,
            job.attempt,
            status,
            reason=reason,
            progress=progress_of(job.kind, run),
            failure=_failure(failed, log) if failed else None,
            model_version=_model_version(job, succeeded.model) if succeeded else None,
            summary=succeeded.summary if succeeded else None,
        )
        logger.info("%s is %s", job.id, status)

    async def _discard_doubles(self, job: Job, run: RunReport) -> None:
        """Remove what MLflow opened late, for a replica that had given up or was killed."""
        try:
            await self._runs.discard_doubles(job.id, run.ref.run_id)
        except RefusedError:
            logger.exception("%s may have a second run in MLflow", job.id)

    async def _keep_log(self, job: Job, run: RunReport | None) -> str | None:
        """Save the driver's log with the run, since Ray keeps it only for a while."""
        log = await self._drivers.log(job.submission_id)
        if log is not None and run is not None:
            try:
                await self._runs.save_log(run.ref.run_id, job.attempt, log)
            except RefusedError:
                logger.exception("the log of %s is not kept", job.submission_id)
        return log


_RUN_STATUS = {
    JobStatus.SUCCEEDED: RunStatus.FINISHED,
    JobStatus.FAILED: RunStatus.FAILED,
    JobStatus.CANCELLED: RunStatus.KILLED,
}


def _stopping_point(run: RunReport | None) -> str | None:
    return stopping_point(run.metrics) if run else None


def _failure(failed: Fail, log: str | None) -> dict[str, object]:
    tail = "\n".join(log.splitlines()[-_LOG_TAIL_LINES:])[-_LOG_TAIL_CHARS:] if log else None
    return {"code": failed.code, "message": failed.message, "log_tail": tail}


def _model_version(job: Job, model: ModelRef | None) -> dict[str, object] | None:
    if model is None:
        return None
    alias = job.spec.get("registry", {}).get("alias")
    uri = f"models:/{model.name}/{model.version}"
    return {"name": model.name, "version": model.version, "alias": alias, "uri": uri}
