"""What Prometheus is answered: what this process has counted, and how the service stands now.

The jobs are counted in the database when Prometheus asks, so every replica answers the same of
them: take the maximum over replicas, not the sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.census import Census, JobCensus
from service.control_loop import ControlLoop
from service.errors import DatabaseUnavailableError
from service.states import JobStatus
from service.tables import utc_now
from service.telemetry import Telemetry

_ON_CLUSTER = (JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.CANCELLING)


@dataclass(frozen=True)
class Exposed:
    """A text for Prometheus."""

    content: bytes
    media_type: str


class Exposition:
    """Answers scrapes.

    Args:
        telemetry: What was counted.
        census: Counts the jobs.
        control_loop: Tells how it keeps up.
        max_live_drivers: Places on the cluster.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        census: JobCensus,
        control_loop: ControlLoop,
        max_live_drivers: int,
    ) -> None:
        self._registry = telemetry.registry
        self._census = census
        self._state = _State(control_loop, max_live_drivers)
        self._registry.register(self._state)

    async def text(self, accept: str) -> Exposed:
        """Everything, as Prometheus's text format or, if `accept` says so, as OpenMetrics.

        Without a database the jobs are left out, and the rest is answered.
        """
        try:
            self._state.census = await self._census.take()
        except DatabaseUnavailableError:
            self._state.census = None
        encode, media_type = choose_encoder(accept)
        return Exposed(encode(self._registry), media_type)


class _State(Collector):
    """The gauges that are read off when they are asked for."""

    def __init__(self, control_loop: ControlLoop, max_live_drivers: int) -> None:
        self.census: Census | None = None
        self._control_loop = control_loop
        self._max_live_drivers = max_live_drivers

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing, so that registering asks for no figures."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, in the order in which they are explained in docs/operations.md."""
        yield _gauge(
            "database_up", "Whether the database answered this scrape.", self.census is not None
        )
        if self.census is not None:
            yield from _jobs(self.census)
        yield _gauge("max_live_drivers", "Places on the cluster.", self._max_live_drivers)
        loop = self._control_loop
        is_acting = loop.is_acting
        yield _gauge("lease_held", "Whether this replica moves the jobs.", is_acting)
        if is_acting:
            yield _gauge(
                "reconciler_lag_seconds",
                "Time since all jobs were last compared with Ray and MLflow.",
                loop.lag_s,
            )
            yield _gauge(
                "reconciler_jobs_behind",
                "Jobs that could not be compared in the last round.",
                loop.num_behind,
            )


def _jobs(census: Census) -> Iterator[GaugeMetricFamily]:
    jobs = GaugeMetricFamily("hyplora_jobs", "Jobs by state.", labels=["status", "kind"])
    for (status, kind), number in sorted(census.numbers.items()):
        jobs.add_metric([status, kind], number)
    yield jobs
    yield _gauge("queue_depth", "Jobs that wait for a place.", census.num_of(JobStatus.QUEUED))
    since = census.waiting_since
    waits_s = (utc_now() - since).total_seconds() if since else 0.0
    yield _gauge("queue_oldest_seconds", "Age of the oldest of them.", max(0.0, waits_s))
    yield _gauge(
        "live_drivers", "Jobs that hold a place on the cluster.", census.num_of(*_ON_CLUSTER)
    )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hyplora_{name}", text, value=value)
