"""Dry runs: what a job would come to, asked of the cluster and kept nowhere.

The service sees neither base models nor GPUs, so a driver of its own kind looks, without a GPU. It
ends by itself after seconds; one that takes too long, or whose answer nobody waits for any more, is
stopped. A driver that Ray has not yet started cannot be stopped and runs to its end.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Any, Self

from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from jobs.specs import JobSpec, file_ids
from jobs.tickets import DRY_RUN_MARK, TICKET_VARIABLE, DryRunTicket
from service.answers import DryRunRead
from service.boundaries import DriverReport, DriverRequest, Drivers, DriverState
from service.callers import Caller
from service.errors import (
    DryRunsBusyError,
    DryRunTimeoutError,
    InternalError,
    JobWouldFailError,
    MissingFileError,
    RayUnavailableError,
    RefusedError,
    UnavailableError,
)
from service.files import Files
from service.lifecycle import Jobs
from service.settings import ServiceSettings
from workers.specs import FailureCode

logger = logging.getLogger(__name__)


class DryRuns:
    """Carries out a bounded number of dry runs at a time, in this process alone.

    Args:
        settings: How many, for how long, and how drivers are started.
        jobs: Knows which files and models a job may name.
        files: Has the rows.
        drivers: The cluster.
    """

    def __init__(
        self, settings: ServiceSettings, jobs: Jobs, files: Files, drivers: Drivers
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._files = files
        self._drivers = drivers
        self._places = asyncio.Semaphore(settings.max_dry_runs)

    def acting_for(self, caller: Caller) -> Self:
        """The same places, for a caller's own files."""
        acting = copy(self)
        acting._jobs = self._jobs.acting_for(caller)
        acting._files = self._files.acting_for(caller)
        return acting

    async def run(self, spec: JobSpec, is_abandoned: Callable[[], Awaitable[bool]]) -> DryRunRead:
        """Answer what a job would come to.

        Args:
            spec: The job.
            is_abandoned: Whether nobody waits for the answer any more.

        Raises:
            ClientDisconnect: If nobody waits for the answer any more.
            DataFileNotFoundError: If the spec names a file that was not uploaded.
            DatasetInvalidError: If the spec names a file that is not valid.
            DryRunsBusyError: If too many dry runs are under way.
            DryRunTimeoutError: If the cluster takes too long.
            FileNotReadyError: If the rows of a file are still being validated.
            JobWouldFailError: If the job would fail, with the code of that failure.
            ModelNameTakenError: If the job would write to a model of another project.
            ModelNotFoundError: If the spec names a model of another project.
            RayUnavailableError: If the cluster does not answer.
        """
        if self._places.locked():
            raise DryRunsBusyError(
                f"{self._settings.max_dry_runs} dry runs are under way, the most this service does "
                "at a time; try again in a moment"
            )
        async with self._places:
            request = await self._request(spec)
            ending = await self._carry_out(request, is_abandoned)
            log = await self._drivers.log(request.submission_id)
        return _read_answer(ending, log or "")

    async def _request(self, spec: JobSpec) -> DriverRequest:
        await self._jobs.require_sound(spec)
        try:
            files = await self._files.refs(set(file_ids(spec).values()))
        except MissingFileError as error:
            raise JobWouldFailError(str(error), FailureCode.DATA_INVALID) from error
        ticket = DryRunTicket(spec=spec, reach=self._settings.reach, files=files)
        return DriverRequest(
            submission_id=f"dryrun-{secrets.token_hex(8)}",
            entrypoint=f"{self._settings.driver_python} -m jobs.dry_run",
            environment={
                TICKET_VARIABLE: ticket.model_dump_json(),
                "MLFLOW_TRACKING_URI": self._settings.mlflow_tracking_uri,
                "CUDA_VISIBLE_DEVICES": "",
            },
            metadata={"name": spec.name, "kind": "dry-run"},
        )

    async def _carry_out(
        self, request: DriverRequest, is_abandoned: Callable[[], Awaitable[bool]]
    ) -> DriverReport:
        """Start a driver and wait for its end; whatever else happens, it is stopped."""
        has_ended = False
        try:
            async with asyncio.timeout(self._settings.dry_run_timeout_s):
                await self._drivers.submit(request)
                while (ending := await self._drivers.report(request.submission_id)).state.is_live:
                    if await is_abandoned():
                        raise ClientDisconnect
                    await asyncio.sleep(self._settings.poll_interval_s)
            has_ended = True
        except TimeoutError as error:
            raise DryRunTimeoutError(
                f"the cluster did not answer within {self._settings.dry_run_timeout_s:g} s; a base "
                "model that has to be downloaded first takes longer: submit the job, or let the "
                "operator raise HYPLORA_DRY_RUN_TIMEOUT_S"
            ) from error
        except RefusedError as error:
            raise InternalError(str(error)) from error
        finally:
            if not has_ended:
                await self._stop(request.submission_id)
        return ending

    async def _stop(self, submission_id: str) -> None:
        try:
            await self._drivers.stop(submission_id)
        except (UnavailableError, RefusedError) as error:
            logger.warning("%s could not be stopped: %s", submission_id, error)


def _read_answer(ending: DriverReport, log: str) -> DryRunRead:
    """What a driver that has ended wrote last."""
    if ending.state is DriverState.UNKNOWN:
        raise RayUnavailableError("Ray was restarted and has forgotten the dry run; try again")
    document = _marked(log)
    if failure := document.get("failure"):
        raise JobWouldFailError(failure["message"], FailureCode(failure["code"]))
    try:
        return DryRunRead.model_validate(document.get("result"))
    except ValidationError as error:
        logger.exception("a dry run ended as %s without an answer: %s", ending, log[-4000:])
        raise InternalError(
            f"the dry run ended without an answer ({ending.state}: {ending.message}); "
            "the service's log has the end of its log"
        ) from error


def _marked(log: str) -> dict[str, Any]:
    """The document of the last marked line; empty if there is none."""
    _, found, rest = log.rpartition(f"\n{DRY_RUN_MARK}")
    line = rest.partition("\n")[0]
    try:
        document = json.loads(line) if found else {}
    except json.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
