"""The one loop that moves jobs: reconcile, dispatch, sleep; on one replica at a time."""

import asyncio
import logging
import time
from collections.abc import Callable

from service.dispatcher import Dispatcher
from service.errors import UnavailableError
from service.leases import Lease, LeaseLostError
from service.reconciler import Reconciler

logger = logging.getLogger(__name__)

_RENEWALS_PER_TTL = 3
_MAX_DELAY_S = 15.0


class ControlLoop:
    """Runs reconciler and dispatcher by turns: a job is never in the hands of both.

    Args:
        lease: Held by the replica that acts.
        lease_ttl_s: For how long it is held without renewal.
        reconciler: Looks after the jobs on the cluster.
        dispatcher: Puts jobs there.
        poll_interval_s: Pause between two rounds; longer while Ray or MLflow is away.
        on_round: Told the seconds that each complete round took.
    """

    def __init__(
        self,
        lease: Lease,
        lease_ttl_s: float,
        reconciler: Reconciler,
        dispatcher: Dispatcher,
        poll_interval_s: float,
        on_round: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self.lease = lease
        self._renewal_interval_s = lease_ttl_s / _RENEWALS_PER_TTL
        self._reconciler = reconciler
        self._dispatcher = dispatcher
        self._poll_interval_s = poll_interval_s
        self._delay_s = poll_interval_s
        self._on_round = on_round
        self._current_at = time.monotonic()

    @property
    def is_acting(self) -> bool:
        """Whether this replica is the one that moves jobs."""
        return self.lease.is_held

    @property
    def lag_s(self) -> float:
        """Seconds since the jobs were last compared with Ray and MLflow, all of them.

        A replica that takes the lease over counts from then.
        """
        return time.monotonic() - self._current_at

    @property
    def num_behind(self) -> int:
        """Jobs that the last round could not compare."""
        return self._reconciler.num_behind

    async def run(self) -> None:
        """Go on until cancelled; then let another replica take over at once."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_lease())
                tasks.create_task(self._keep_working())
        finally:
            try:
                await self.lease.release()
            except UnavailableError as error:
                logger.warning("the lease is left to expire: %s", error)

    async def work_once(self) -> None:
        """One round.

        Raises:
            LeaseLostError: If another replica took over; it goes on from what was done.
            UnavailableError: If Ray or MLflow is away; the round is repeated when it is back.
        """
        began_at = time.monotonic()
        await self._reconciler.reconcile()
        await self._dispatcher.dispatch_waiting()
        self._current_at = time.monotonic()
        self._on_round(self._current_at - began_at)

    async def _keep_lease(self) -> None:
        is_away = is_leading = False
        while True:
            try:
                was_leading, is_leading = is_leading, await self.lease.acquire()
                is_away = False
                if is_leading and not was_leading:
                    self._current_at = time.monotonic()
                    logger.info("this replica leads")
                elif was_leading and not is_leading:
                    logger.warning("another replica leads now; this one stands by")
            except UnavailableError as error:
                if not is_away:
                    logger.warning("the lease cannot be renewed; trying again: %s", error)
                is_away = True
            except Exception:
                logger.exception("the lease cannot be renewed; trying again")
            await asyncio.sleep(self._renewal_interval_s)

    async def _keep_working(self) -> None:
        while True:
            if self.lease.is_held:
                await self._work_or_back_off()
            else:
                self._delay_s = self._poll_interval_s
            await asyncio.sleep(self._delay_s)

    async def _work_or_back_off(self) -> None:
        is_first_failure = self._delay_s == self._poll_interval_s
        try:
            await self.work_once()
        except LeaseLostError as error:
            logger.warning("%s", error)
            return
        except UnavailableError as error:
            if is_first_failure:
                logger.warning("%s", error)
        except Exception:
            logger.exception("the control loop goes on after an error")
        else:
            if not is_first_failure:
                logger.info("everything answers again")
            self._delay_s = self._poll_interval_s
            return
        self._delay_s = min(2 * self._delay_s, max(_MAX_DELAY_S, self._poll_interval_s))
