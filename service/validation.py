"""Validation that outlasts its upload: each file is in the hands of one replica, by a lease.

A replica that is killed lets its lease expire, and another begins anew with the stored bytes. Where
two come to work on one file all the same, the first verdict stands; both are the same.
"""

import asyncio
import logging

from sqlalchemy import Exists, literal, select

from service.contents import Contents
from service.database import Database
from service.errors import UnavailableError
from service.file_states import FileStatus
from service.leases import Lease
from service.row_check import Verdict
from service.row_checks import RowChecks
from service.tables import LeaseRow, UploadedFile, utc_now

logger = logging.getLogger(__name__)

_LEASE = "check-"
_RENEWALS_PER_TTL = 3


class Validation:
    """Carries on what uploads have begun, and takes up what other replicas have left.

    Args:
        database: Shared by the replicas.
        contents: Has the bytes.
        checks: Reads the rows.
        lease_ttl_s: Seconds after which a silent replica's files are taken up.
    """

    def __init__(
        self, database: Database, contents: Contents, checks: RowChecks, lease_ttl_s: float
    ) -> None:
        self._database = database
        self._contents = contents
        self._checks = checks
        self._lease_ttl_s = lease_ttl_s
        self._interval_s = lease_ttl_s / _RENEWALS_PER_TTL
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def lease(self, file_id: str) -> Lease:
        """The right to validate one file; take it before there is a record that shows the need."""
        return Lease(self._database, f"{_LEASE}{file_id}", self._lease_ttl_s)

    def carry_on(self, file_id: str, lease: Lease, check: asyncio.Task[Verdict]) -> None:
        """See to it that a check that has begun ends in the file's record."""
        task = asyncio.create_task(self._carry_on(file_id, lease, check), name=f"{file_id}")
        self._tasks[file_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(file_id, None))

    async def run(self) -> None:
        """Go on until cancelled."""
        try:
            while True:
                try:
                    await self.work_once()
                except UnavailableError as error:
                    logger.warning("files wait to be validated: %s", error)
                except Exception:
                    logger.exception("the validation of files goes on after an error")
                await asyncio.sleep(self._interval_s)
        finally:
            await self.stop()

    async def work_once(self) -> None:
        """Take up files that nobody validates, as many as there are places; sweep."""
        await self._contents.sweep()
        for file in await self._waiting():
            lease = self.lease(file.id)
            if await lease.acquire():
                await self._take_up(file, lease)

    async def stop(self) -> None:
        """End all checks here; other replicas, or the next start, take them up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self) -> None:
        """Wait until every check that has begun here has ended."""
        await asyncio.gather(*self._tasks.values())

    async def _waiting(self) -> list[UploadedFile]:
        """Files to validate that nobody has in hand, the oldest first, as there is room."""
        room = self._checks.max_processes - len(self._tasks)
        if room <= 0:
            return []
        query = select(UploadedFile).where(
            UploadedFile.status == FileStatus.VALIDATING, ~_is_leased()
        )
        async with self._database.reading() as session:
            found = await session.scalars(query.order_by(UploadedFile.created_at).limit(room))
            return list(found)

    async def _still_waits(self, file_id: str) -> bool:
        async with self._database.reading() as session:
            file = await session.get(UploadedFile, file_id)
        return file is not None and file.status is FileStatus.VALIDATING

    async def _take_up(self, file: UploadedFile, lease: Lease) -> None:
        if not await self._still_waits(file.id):  # it may have been settled since it was listed
            await lease.release()
            return
        try:
            check = await self._checks.begin(self._contents.path(file.sha256))
        except FileNotFoundError:
            gone = Verdict(problem="its bytes are no longer in storage; upload it again")
            await self._settle(file.id, gone)
            await lease.release()
        else:
            logger.info("validating %s, which an upload left", file.id)
            self.carry_on(file.id, lease, check)

    async def _carry_on(self, file_id: str, lease: Lease, check: asyncio.Task[Verdict]) -> None:
        renewal = asyncio.create_task(self._keep(lease))
        try:
            await self._settle(file_id, await check)
            await lease.release()
        except asyncio.CancelledError:
            await _give_back(lease)
            raise
        except (UnavailableError, OSError) as error:
            logger.warning("%s is validated again later: %s", file_id, error)
        finally:
            renewal.cancel()
            check.cancel()
            await asyncio.gather(renewal, check, return_exceptions=True)

    async def _keep(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await lease.acquire()
            except UnavailableError as error:
                logger.warning("a lease is not renewed: %s", error)

    async def _settle(self, file_id: str, verdict: Verdict) -> None:
        """Write what was found, unless the file is gone or another replica has done so."""
        async with self._database.writing() as session:
            file = await session.get(UploadedFile, file_id, with_for_update=True)
            if file is None or file.status is not FileStatus.VALIDATING:
                return
            if verdict.problem is None:
                file.status, file.num_rows = FileStatus.READY, verdict.num_rows
                return
            file.status, file.fault = FileStatus.INVALID, verdict.model_dump(mode="json")
            leftover = self._contents.condemn(session, file.sha256)
        logger.info("%s is not valid: %s", file_id, verdict.problem)
        await self._contents.clear(leftover)


def _is_leased() -> Exists:
    lease = select(LeaseRow.name).where(
        LeaseRow.name == literal(_LEASE) + UploadedFile.id, LeaseRow.expires_at >= utc_now()
    )
    return lease.exists()


async def _give_back(lease: Lease) -> None:
    try:
        await lease.release()
    except UnavailableError as error:
        logger.warning("a lease is left to expire: %s", error)
