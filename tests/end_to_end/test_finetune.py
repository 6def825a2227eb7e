"""A fine-tune from REST submission to registry pull, through real Ray, MLflow and HTTP."""

import json
import os
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import hyplora
from deploy.local import LocalStack
from service.answers import FileRead, JobRead
from service.client import Client

pytestmark = pytest.mark.integration
REPOSITORY = Path(hyplora.__file__).parent.parent


@pytest.fixture(scope="module")
def job(
    make_spec: Callable[..., dict[str, Any]], run_to_end: Callable[[dict[str, Any]], JobRead]
) -> JobRead:
    """One finished HypLoRA job, looked at from all sides by the tests below."""
    return run_to_end(make_spec("sums", registry={"alias": "champion"}))


@pytest.fixture(scope="module")
def mlflow_client(stack: LocalStack) -> MlflowClient:
    return MlflowClient(tracking_uri=stack.mlflow_url)


@pytest.fixture(scope="module")
def pulled(job: JobRead, stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert job.model_version is not None
    folder = tmp_path_factory.mktemp("pulled")
    mlflow.set_tracking_uri(stack.mlflow_url)
    uri = "models:/sums@champion"
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))


def test_a_submitted_job_ends_as_a_registered_model_version(job: JobRead) -> None:
    assert (job.status, job.failure, job.attempt) == ("succeeded", None, 1)
    assert job.progress is not None
    assert (job.progress.step, job.progress.total_steps) == (12, 12)
    assert job.model_version is not None
    assert job.model_version.uri == f"models:/sums/{job.model_version.version}"


def test_the_events_tell_the_whole_way_and_can_be_replayed(job: JobRead, client: Client) -> None:
    events = client.list_events(job.id).data
    statuses = [event.data["status"] for event in events if event.type == "status"]
    assert statuses == ["queued", "running", "succeeded"]
    assert list(client.follow_events(job.id)) == events
    assert list(client.follow_events(job.id, after=events[0].id)) == events[1:]


def test_every_step_is_recorded_in_mlflow_once(job: JobRead, mlflow_client: MlflowClient) -> None:
    run = run_of(job, mlflow_client)
    assert run.info.status == "FINISHED"
    history = mlflow_client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 13))
    assert history[-1].value < history[0].value
    assert run.data.metrics["train/curvature"] == 1.0
    assert {"eval/loss", "train/learning_rate", "train/tokens_per_s", "train/gradient_norm"} <= set(
        run.data.metrics
    )


def test_the_model_version_says_where_it_comes_from(
    job: JobRead, mlflow_client: MlflowClient, sums: FileRead
) -> None:
    assert job.model_version is not None
    version = mlflow_client.get_model_version("sums", job.model_version.version)
    assert version.tags["hyplora.job_id"] == job.id
    assert version.tags["train_sha256"] == sums.sha256
    assert version.tags["base_model"] == job.spec["base_model"]
    assert version.tags["base_model_digest"].startswith("sha256:")
    assert len(version.tags["spec_sha256"]) == 64


def test_the_links_of_a_job_answer(job: JobRead, stack: LocalStack) -> None:
    assert job.links.mlflow_run is not None
    assert job.links.model_version is not None
    assert job.links.ray_dashboard == f"{stack.ray_dashboard_url}/#/jobs/{job.id}-a1"
    for link in (job.links.mlflow_run, job.links.model_version):
        with urllib.request.urlopen(link, timeout=30) as response:  # noqa: S310
            assert response.status == 200


def test_the_log_of_the_driver_can_be_read(job: JobRead, client: Client) -> None:
    assert f"job {job.id} succeeded" in "".join(client.logs(job.id))


def test_peft_loads_the_registered_adapter_as_it_is(
    job: JobRead, pulled: Path, tiny_model_dir: Path
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    token_ids = torch.tensor([[1, 2, 3]])
    before = base(token_ids).logits.detach().clone()
    adapted = PeftModel.from_pretrained(base, pulled)
    weights = load_file(pulled / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "hyplora_B" in name)
    assert not torch.equal(adapted(token_ids).logits, before)


def test_a_registered_adapter_holds_no_pickle(pulled: Path) -> None:
    assert not [
        path for path in pulled.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}
    ]


def test_pyfunc_answers_in_a_process_where_this_project_is_not_installed(
    job: JobRead, stack: LocalStack, tmp_path: Path
) -> None:
    code = f"""
        import importlib.util, json, sys
        sys.path[:] = [entry for entry in sys.path if entry != {str(REPOSITORY)!r}]
        assert not any(map(importlib.util.find_spec, ("hyplora", "workers", "jobs", "service")))
        import mlflow
        model = mlflow.pyfunc.load_model("models:/sums@champion")
        print(json.dumps(model.predict(["add\\n\\n3 4", "add\\n\\n1 1"])))
    """
    environment = {**os.environ, "MLFLOW_TRACKING_URI": stack.mlflow_url}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == 2
    assert all(isinstance(answer, str) for answer in answers)


def test_two_workers_train_as_one_does(
    job: JobRead,
    make_spec: Callable[..., dict[str, Any]],
    run_to_end: Callable[[dict[str, Any]], JobRead],
    mlflow_client: MlflowClient,
) -> None:
    two = run_to_end(make_spec("sums-by-two", resources={"num_workers": 2}))
    assert two.status == "succeeded", two.failure
    curves = [loss_curve(one, mlflow_client) for one in (job, two)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


@pytest.mark.slow
def test_plain_lora_is_trained_as_pefts_own(
    make_spec: Callable[..., dict[str, Any]],
    run_to_end: Callable[[dict[str, Any]], JobRead],
    stack: LocalStack,
    tmp_path: Path,
) -> None:
    spec = make_spec("lora-sums", training={"max_steps": 2})
    job = run_to_end(spec | {"adapter": {"method": "lora", "r": 4}})
    assert job.model_version is not None, job.failure
    mlflow.set_tracking_uri(stack.mlflow_url)
    folder = mlflow.artifacts.download_artifacts(job.model_version.uri, dst_path=str(tmp_path))
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"


@pytest.mark.slow
def test_a_base_model_may_come_from_mlflow(
    make_spec: Callable[..., dict[str, Any]],
    run_to_end: Callable[[dict[str, Any]], JobRead],
    mlflow_client: MlflowClient,
    tiny_model_dir: Path,
) -> None:
    run_id = mlflow_client.create_run("0").info.run_id
    mlflow_client.log_artifacts(run_id, str(tiny_model_dir), "base")
    spec = make_spec("from-mlflow", base_model=f"runs:/{run_id}/base", training={"max_steps": 2})
    job = run_to_end(spec)
    assert job.status == "succeeded", job.failure


def run_of(job: JobRead, client: MlflowClient) -> Any:
    (experiment,) = client.search_experiments(filter_string="name = 'hyplora'")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`hyplora.job_id` = '{job.id}'")
    return run


def loss_curve(job: JobRead, client: MlflowClient) -> list[float]:
    run_id = run_of(job, client).info.run_id
    return [point.value for point in client.get_metric_history(run_id, "train/loss")]
