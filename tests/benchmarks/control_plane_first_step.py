"""From a submission to the first optimizer step: the service beside `ray job submit`.

Both start the same driver with the same environment and an equal ticket. The clock begins with the
request and ends with the moment that the worker gives the first training loss in MLflow. What the
service does for its job, the other finds done: its MLflow run is there before the clock begins.
"""

import asyncio
import secrets
import statistics
import time
from collections.abc import Callable
from typing import Any

from control_plane_stack import Bench
from mlflow import MlflowClient
from ray.job_submission import JobStatus as DriverStatus
from ray.job_submission import JobSubmissionClient

from jobs.tickets import TICKET_VARIABLE, FileRef, JobTicket
from service.database import Database
from service.files import Files
from service.settings import ServiceSettings
from workers.specs import RunMetric

_TIMEOUT_S = 300
_SERVICE, _RAY = "service", "ray job submit"


class FirstSteps:
    """Submits in either way, and waits for each job to end before the next."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._settings = ServiceSettings(home=bench.stack.home)
        self._mlflow = MlflowClient(tracking_uri=bench.stack.mlflow_url)
        self._ray = JobSubmissionClient(
            bench.stack.ray_dashboard_url, headers=bench.stack.ray_headers()
        )
        self._files = asyncio.run(self._find_files())

    def by_service(self, name: str) -> float:
        """Seconds from the POST to the first step."""
        began = time.time()
        job = self._bench.client.submit_job(self._bench.spec(name))
        for _ in self._bench.client.follow_events(job.id):
            pass
        job = self._bench.client.get_job(job.id)
        if job.status != "succeeded" or job.links.mlflow_run is None:
            raise RuntimeError(f"{job.id} is {job.status}: {job.failure}")
        return self._first_step(job.links.mlflow_run.rpartition("/")[2]) - began

    def by_ray(self, name: str) -> float:
        """Seconds from Ray's submission to the first step."""
        experiment = self._mlflow.get_experiment_by_name(self._settings.mlflow_experiment)
        run = self._mlflow.create_run(experiment.experiment_id, run_name=name)
        ticket = JobTicket(
            job_id=f"job-{secrets.token_hex(8)}",
            attempt=1,
            run_id=run.info.run_id,
            tracking_uri=self._bench.stack.mlflow_url,
            storage_path=self._settings.storage_path,
            spec=self._bench.spec(name),
            files=self._files,
        )
        environment = {
            TICKET_VARIABLE: ticket.model_dump_json(),
            "MLFLOW_TRACKING_URI": self._bench.stack.mlflow_url,
        }
        began = time.time()
        submission_id = self._ray.submit_job(
            entrypoint=f"{self._settings.driver_python} -m jobs.finetune",
            submission_id=f"{ticket.job_id}-a1",
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

    def _first_step(self, run_id: str) -> float:
        history = self._mlflow.get_metric_history(run_id, RunMetric.LOSS)
        return min(metric.timestamp for metric in history) / 1e3

    async def _find_files(self) -> dict[str, FileRef]:
        database = Database(self._bench.database_url)
        try:
            files = Files(database, self._settings.files_dir, self._settings.max_upload_bytes)
            return await files.refs({self._bench.file_id})
        finally:
            await database.close()


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
