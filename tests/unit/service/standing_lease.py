"""A lease that is held whoever asks, for tests of what a leader does to jobs."""

from sqlalchemy.ext.asyncio import AsyncSession

from service.database import Database
from service.leases import Lease
from service.led_jobs import LedJobs


class StandingLease(Lease):
    """Never lost."""

    async def require(self, session: AsyncSession) -> None:
        """Let the transaction go on."""


def led_jobs(database: Database) -> LedJobs:
    """The jobs of a database, for a leader that nobody contests."""
    return LedJobs(database, StandingLease(database, "tests", 3600))
