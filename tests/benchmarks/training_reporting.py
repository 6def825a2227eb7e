"""What surrounds the loop in a job costs: Ray Train, MLflow's writer, checkpoints, events.

Part of tests/benchmarks/training.py. The same training runs alone and as a job of the embedded
stack in turn, the one or the other first, and both tell when each of their steps ended. The stack
is up all the while, so its idling servers slow both.
"""

import io
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from mlflow import MlflowClient
from training_method import MethodConfig, Training

from deploy.home import StackPorts
from deploy.local import LocalStack
from service.client import Client


def reporting_overhead(
    config: MethodConfig, rows: Path, train_bare: Callable[[], Training], num_rounds: int
) -> dict[str, list[float]]:
    """Shares of a job's time that the same training alone does not take, one a round.

    Returns:
        `reporting_overhead`: of a typical step, the median over pairs of the same step;
        `reporting_and_checkpoints`: of all steps but the first together.
    """
    figures: dict[str, list[float]] = {"reporting_overhead": [], "reporting_and_checkpoints": []}
    with (
        tempfile.TemporaryDirectory() as home,
        LocalStack(Path(home), StackPorts(0, 0, 0), [Path(config.base_model)]) as stack,
    ):
        stack.start()
        with Client(stack.api_url, stack.token) as client:
            file_id = client.upload_file(io.BytesIO(rows.read_bytes()), rows.name).id
            first = replace(config, training=config.training | {"max_steps": 1})
            _run_job(client, first, file_id, "warm-up")  # a stack that has just come up is busy
            for number in range(num_rounds):
                took: dict[str, list[float]] = {}
                for way in ("bare", "job") if number % 2 == 0 else ("job", "bare"):
                    if way == "bare":
                        ends = train_bare().step_ends
                    else:
                        job_id = _run_job(client, config, file_id, f"reporting-{number}")
                        ends = _step_ends(stack.mlflow_url, job_id)
                    took[way] = [later - earlier for earlier, later in pairwise(ends)]
                bare, job = took["bare"], took["job"]
                ratios = [alone / within for alone, within in zip(bare, job, strict=True)]
                figures["reporting_overhead"].append(1 - statistics.median(ratios))
                figures["reporting_and_checkpoints"].append(1 - sum(bare) / sum(job))
                print(
                    f"round {number + 1}: a step takes {statistics.median(bare):.3f} s alone and "
                    f"{statistics.median(job):.3f} s in a job; all but the first {sum(bare):.1f} s "
                    f"and {sum(job):.1f} s",
                    flush=True,
                )
    return figures


def _run_job(client: Client, config: MethodConfig, file_id: str, name: str) -> str:
    """Run a job to its end and return its id."""
    training = {
        field: value
        for field, value in config.training.items()
        if field != "checkpoint_every_steps"  # jobs keep the default interval
    }
    job = client.submit_job(
        {
            "kind": "finetune",
            "name": name,
            "base_model": config.base_model,
            "adapter": config.adapter,
            "data": {"train": file_id},
            "training": training,
            "resources": {"cpus_per_worker": config.threads, "gpus_per_worker": 0},
        }
    )
    for _ in client.follow_events(job.id):
        pass
    ended = client.get_job(job.id)
    if ended.status != "succeeded":
        raise RuntimeError(f"the job {ended.status}: {ended.failure}")
    return job.id


def _step_ends(mlflow_url: str, job_id: str) -> list[float]:
    """When each step of a job ended: its values carry the time at which the loop gave them."""
    client = MlflowClient(tracking_uri=mlflow_url)
    (experiment,) = client.search_experiments(filter_string="name = 'hyplora'")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`hyplora.job_id` = '{job_id}'")
    history = client.get_metric_history(run.info.run_id, "train/tokens_per_s")
    return [point.timestamp / 1000 for point in sorted(history, key=lambda point: point.step)]
