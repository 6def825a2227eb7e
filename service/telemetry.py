"""What this process counts of its own work, for Prometheus.

Counters and histograms are of one process and start anew with it, as Prometheus expects: sum them
over the replicas. Each change of a job is counted once, by the replica that has committed it.
Labels are route templates, kinds, states and codes: a client cannot make up a new one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.process_collector import ProcessCollector

from service.tables import Job

UNKNOWN_ROUTE: Final = "none"
"""Stands for every path that the service does not have."""

Stream = Literal["events", "logs"]
"""What clients follow."""

_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_JOB_SECONDS = (
    *(10, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, _DAY, 2 * _DAY, 4 * _DAY, 7 * _DAY),
)
_ROUND_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# A second series for every counter, which says when it began: of no use here.
prometheus_client.disable_created_metrics()


class Telemetry:
    """The counters of one application; several in a process do not meet.

    Args:
        version: Of the service.
    """

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        info = Info("hyplora", "The service.", registry=registry)
        info.info({"version": version})
        self._requests = Counter(
            "hyplora_http_requests_total",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "hyplora_http_request_seconds",
            "Time until an answer began.",
            ["method", "route"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self._request_bytes = Counter(
            "hyplora_http_request_bytes_total",
            "Bytes of the bodies of requests; those of POST /v1/files are uploads.",
            ["method", "route"],
            registry=registry,
        )
        self._problems = Counter(
            "hyplora_problems_total",
            "Answers that were problems, such as rate-limited, by their code.",
            ["code"],
            registry=registry,
        )
        self._database_outages = Counter(
            "hyplora_database_outages_total",
            "Transactions that the database did not answer, those of the control loop included.",
            registry=registry,
        )
        self._followers = Gauge(
            "hyplora_followers", "Open streams of events and logs.", ["stream"], registry=registry
        )
        self._submissions = Counter(
            "hyplora_dispatcher_submissions_total",
            "Attempts at jobs that were put on the Ray cluster.",
            ["kind"],
            registry=registry,
        )
        self._waits = Histogram(
            "hyplora_job_wait_seconds",
            "Time from a job's acceptance to its first submission to the cluster.",
            ["kind"],
            buckets=_JOB_SECONDS,
            registry=registry,
        )
        self._ended = Counter(
            "hyplora_jobs_ended_total",
            "Jobs that have ended; outcome is their last status.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._durations = Histogram(
            "hyplora_job_duration_seconds",
            "Time from a job's first submission to its end, pauses included.",
            ["kind", "outcome"],
            buckets=_JOB_SECONDS,
            registry=registry,
        )
        self._round_seconds = Histogram(
            "hyplora_reconciler_round_seconds",
            "Time that complete rounds of the control loop took.",
            buckets=_ROUND_SECONDS,
            registry=registry,
        )

    def request(
        self, method: str, route: str, status: int, seconds: float, num_bytes: int, code: str | None
    ) -> None:
        """Count a request.

        Args:
            method: Its method, as the client has sent it.
            route: The template of its path.
            status: Of the answer.
            seconds: Until the answer began.
            num_bytes: Length of its body.
            code: That of the problem that was the answer.
        """
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)
        if num_bytes:
            self._request_bytes.labels(method, route).inc(num_bytes)
        if code is not None:
            self._problems.labels(code).inc()

    def database_outage(self) -> None:
        """Count a transaction that failed since the database is away."""
        self._database_outages.inc()

    def round(self, seconds: float) -> None:
        """Count a complete round of the control loop."""
        self._round_seconds.observe(seconds)

    @contextmanager
    def following(self, stream: Stream) -> Iterator[None]:
        """Count a follower while the context lasts."""
        follower = self._followers.labels(stream)
        follower.inc()
        try:
            yield
        finally:
            follower.dec()

    def submitted(self, job: Job) -> None:
        """Count an attempt that Ray has taken."""
        self._submissions.labels(job.kind).inc()

    def started(self, job: Job) -> None:
        """Count the end of a job's first wait."""
        if job.started_at is not None:
            seconds = (job.started_at - job.created_at).total_seconds()
            self._waits.labels(job.kind).observe(max(0.0, seconds))

    def ended(self, job: Job) -> None:
        """Count a job that has ended for good."""
        self._ended.labels(job.kind, job.status).inc()
        if job.started_at is not None and job.finished_at is not None:
            seconds = (job.finished_at - job.started_at).total_seconds()
            self._durations.labels(job.kind, job.status).observe(max(0.0, seconds))
