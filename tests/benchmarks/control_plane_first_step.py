"""From a submission to the first optimizer step: the service beside `ray job submit`.

Ray gets what the service has given it for an earlier job: the same command, environment and ticket,
but for the ids. The clock begins with the request and ends with the moment that the worker gives
the first training loss in MLflow. What the service does for its job, the other finds done: its
MLflow run is there before the clock begins.
"""

import secrets
import statistics
import time
from collections.abc import Callable
from typing import Any

from control_plane_stack import Bench
from mlflow import MlflowClient
from ray.job_submission import JobStatus as DriverStatus
from ray.job_submission import JobSubmissionClient

from jobs.tickets import TICKET_VARIABLE, JobTicket
from service.answers import JobRead
from workers.specs import RunMetric

_TIMEOUT_S = 300
_SERVICE, _RAY = "service", "ray job submit"


class FirstSteps:
    """Submits in either way, and waits for each job to end before the next."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._mlflow = MlflowClient(tracking_uri=bench.stack.mlflow_url)
        self._ray = JobSubmissionClient(
            bench.stack.ray_dashboard_url, headers=bench.stack.ray_headers()
        )
        warm_up = self._run_by_service("warm-up")
        self._pattern = self._ray.get_job_info(f"{warm_up.id}-a{warm_up.attempt}")

    def by_service(self, name: str) -> float:
        """Seconds from the POST to the first step."""
        began = time.time()
        job = self._run_by_service(name)
        assert job.links.mlflow_run is not None
        return self._first_step(job.links.mlflow_run.rpartition("/")[2]) - began

    def by_ray(self, name: str) -> float:
        """Seconds from Ray's submission to the first step."""
        environment = dict(self._pattern.runtime_env["env_vars"])
        ticket = JobTicket.model_validate_json(environment[TICKET_VARIABLE])
        like = self._mlflow.get_run(ticket.run_id).info
        run = self._mlflow.create_run(like.experiment_id, run_name=name)
        job_id = f"job-{secrets.token_hex(8)}"
        ticket = ticket.model_copy(update={"job_id": job_id, "run_id": run.info.run_id})
        environment[TICKET_VARIABLE] = ticket.model_dump_json()
        began = time.time()
        submission_id = self._ray.submit_job(
            entrypoint=self._pattern.entrypoint,
            submission_id=f"{job_id}-a1",
            runtime_env={"env_vars": environment},
        )
        deadline = time.monotonic() + _TIMEOUT_S
        while not (status := self._ray.get_job_status(submission_id)).is_terminal():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{submission_id} took longer than {_TIMEOUT_S} s")
            time.sleep(1.0)  # as often as the service looks
        if status is not DriverStatus.SUCCEEDED:
            raise RuntimeError(self._ray.get_job_logs(submission_id)[-3000:])
        return self._first_step(run.info.run_id) - began

    def _run_by_service(self, name: str) -> JobRead:
        """Submit a job and follow it to its end."""
        job = self._bench.client.submit_job(self._bench.spec(name))
        for _ in self._bench.client.follow_events(job.id):
            pass
        job = self._bench.client.get_job(job.id)
        if job.status != "succeeded":
            raise RuntimeError(f"{job.id} is {job.status}: {job.failure}")
        return job

    def _first_step(self, run_id: str) -> float:
        history = self._mlflow.get_metric_history(run_id, RunMetric.LOSS)
        return min(metric.timestamp for metric in history) / 1e3


def measure_first_steps(bench: Bench, num_rounds: int) -> dict[str, Any]:
    """Rounds of both, each round beginning with the other."""
    steps = FirstSteps(bench)
    ways: dict[str, Callable[[str], float]] = {_SERVICE: steps.by_service, _RAY: steps.by_ray}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(num_rounds):
        for way in list(ways) if number % 2 == 0 else reversed(ways):
            seconds[way].append(ways[way](f"first-step-{number}"))
            print(f"first step, {way}: {seconds[way][-1]:.1f} s", flush=True)
    ratios = [ours / rays for ours, rays in zip(seconds[_SERVICE], seconds[_RAY], strict=True)]
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    return {
        "seconds": {way: [round(each, 2) for each in values] for way, values in seconds.items()},
        "ratio": round(medians[_SERVICE] / medians[_RAY], 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
