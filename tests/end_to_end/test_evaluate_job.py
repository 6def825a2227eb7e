"""Evaluations as drivers run them: stopped, killed and gone on with, on real Ray and MLflow."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from ray.job_submission import JobStatus, JobSubmissionClient

from deploy.local import LocalStack
from jobs.evaluate_specs import EvaluateSpec
from jobs.evaluation.answering import answer
from jobs.evaluation.asked import Asked
from jobs.registry import register_adapter
from jobs.tickets import TICKET_VARIABLE, FileRef, JobTicket, RunTag
from workers.adapter import build_adapter, save_adapter
from workers.base_model import load_base_model
from workers.evaluate import Shard
from workers.predictions import read_predictions
from workers.reach import Reach
from workers.specs import AdapterSpec, HypLoraSpec, LoraSpec

pytestmark = pytest.mark.integration

FILE_ID = "file-0123456789abcdef"
NUM_ROWS = 60
TIMEOUT_S = 240.0


@pytest.fixture(scope="module")
def registry(stack: LocalStack) -> MlflowClient:
    return MlflowClient(tracking_uri=stack.mlflow_url)


@pytest.fixture(scope="module")
def versions(
    registry: MlflowClient, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Folders of two adapters: versions 1 and 2 of "judged", of which the first is "champion"."""
    folders = {}
    adapters: dict[str, AdapterSpec] = {
        "lora": LoraSpec(init_weights=False),
        "hyplora": HypLoraSpec(init_weights=False, curvature=0.5),
    }
    for seed, (name, spec) in enumerate(adapters.items()):
        torch.manual_seed(seed)
        folders[name] = tmp_path_factory.mktemp(name)
        save_adapter(build_adapter(load_base_model(str(tiny_model_dir)), spec), folders[name])
        run_id = str(registry.create_run("0").info.run_id)
        alias = "champion" if name == "lora" else None
        register_adapter(registry, run_id, folders[name], "judged", {}, alias)
    return folders


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    sums = [{"instruction": f"{n} + 1 =", "answer": n + 1} for n in range(NUM_ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in sums))
    return path


class Drivers:
    """Starts drivers as the service does, and looks what became of them."""

    def __init__(self, stack: LocalStack, ticket: JobTicket) -> None:
        self.stack, self.ticket = stack, ticket
        self.ray = JobSubmissionClient(stack.ray_dashboard_url, headers=stack.ray_headers())

    def wait_until(self, told: Callable[[], bool], submission_id: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not told():
            has_failed = self.ray.get_job_status(submission_id) == JobStatus.FAILED
            in_time = time.monotonic() < deadline and not has_failed
            assert in_time, self.ray.get_job_logs(submission_id)
            time.sleep(0.05)

    def start(self, attempt: int) -> str:
        ticket = self.ticket.model_copy(update={"attempt": attempt})
        return self.ray.submit_job(
            entrypoint="python -m jobs.evaluate",
            submission_id=f"{ticket.job_id}-{attempt}",
            runtime_env={"env_vars": {TICKET_VARIABLE: ticket.model_dump_json()}},
        )

    def wait(self, submission_id: str) -> JobStatus:
        status = self.ray.get_job_status
        self.wait_until(lambda: status(submission_id).is_terminal(), submission_id)
        return status(submission_id)

    def shards(self) -> list[Path]:
        return sorted(Path(self.ticket.storage_path, self.ticket.job_id).glob("*.jsonl"))

    def num_answers(self) -> int:
        return sum(path.read_bytes().count(b"\n") for path in self.shards())

    def shard_processes(self) -> list[psutil.Process]:
        head = psutil.Process(self.stack.children["ray"].pid)
        return [
            each for each in head.children(recursive=True) if "_answer_shard" in " ".join(cmd(each))
        ]


def cmd(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


@pytest.fixture(scope="module")
def drivers(
    stack: LocalStack,
    registry: MlflowClient,
    versions: dict[str, Path],
    rows: Path,
    tiny_model_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Drivers:
    spec = EvaluateSpec.model_validate(
        {
            "kind": "evaluate",
            "name": "three-models",
            "base_model": str(tiny_model_dir),
            "models": ["base", "models:/judged/2"],
            "tasks": [{"benchmark": "addsub", "data": FILE_ID}],
            "max_new_tokens": 48,
            "batch_rows": 2,
            "resources": {"num_workers": 2},
            "promote_if_better": {"alias": "champion"},
        }
    )
    ticket = JobTicket(
        job_id=f"job-evaluate-{os.getpid()}",
        attempt=1,
        run_id=str(registry.create_run("0").info.run_id),
        tracking_uri=stack.mlflow_url,
        storage_path=str(tmp_path_factory.mktemp("storage")),
        spec=spec,
        reach=Reach(folders=(spec.base_model,)),
        files={FILE_ID: FileRef(uri=str(rows), sha256="0" * 64, num_rows=NUM_ROWS)},
    )
    return Drivers(stack, ticket)


@pytest.fixture(scope="module")
def run(drivers: Drivers, registry: MlflowClient) -> Run:
    """The job's run, after its first attempt was stopped and a worker of its second was killed."""
    first = drivers.start(1)
    drivers.wait_until(lambda: drivers.num_answers() > 3, first)
    drivers.ray.stop_job(first)
    drivers.wait(first)
    run = registry.get_run(drivers.ticket.run_id)
    assert RunTag.SUMMARY not in run.data.tags
    assert RunTag.FAILURE_CODE not in run.data.tags
    before = drivers.num_answers()
    assert 3 < before < 3 * NUM_ROWS
    kept = {path: path.read_bytes() for path in drivers.shards()}
    second = drivers.start(2)
    drivers.wait_until(lambda: drivers.num_answers() > before + 3, second)
    killed = drivers.shard_processes()[0]
    killed.kill()
    assert drivers.wait(second) == JobStatus.SUCCEEDED, drivers.ray.get_job_logs(second)
    for path, content in kept.items():
        whole = content[: content.rfind(b"\n") + 1]
        assert path.read_bytes().startswith(whole), "what was answered is not asked again"
    return registry.get_run(drivers.ticket.run_id)


def test_stopped_and_killed_shards_give_the_predictions_of_one_undisturbed_process(
    run: Run,
    drivers: Drivers,
    registry: MlflowClient,
    versions: dict[str, Path],
    tiny_model_dir: Path,
    tmp_path: Path,
) -> None:
    table = registry.download_artifacts(run.info.run_id, "evaluate/predictions.parquet")
    found = {
        (row["model"], row["row"]): (row["answer"], row["accuracy"])
        for row in pyarrow.parquet.read_table(table).to_pylist()
    }
    spec = drivers.ticket.spec
    assert isinstance(spec, EvaluateSpec)
    names = {"base": None, "judged-2": str(versions["hyplora"])}
    asked = Asked(
        base_model=str(tiny_model_dir),
        models=names | {"judged@champion": str(versions["lora"])},
        tasks=spec.tasks,
        files=drivers.ticket.files,
        max_new_tokens=spec.max_new_tokens,
        batch_rows=16,
    )
    path = tmp_path / "alone.jsonl"
    assert answer(asked, path, Shard(), torch.device("cpu"))
    alone = {
        (each.model, each.row): (each.answer, each.scores["accuracy"])
        for each in read_predictions(path)
    }
    assert len(alone) == 3 * NUM_ROWS
    assert found == alone
    assert len({tuple(found[model, n] for n in range(NUM_ROWS)) for model in asked.models}) == 3


def test_the_run_tells_scores_progress_and_a_summary(run: Run, registry: MlflowClient) -> None:
    report = json.loads(
        Path(registry.download_artifacts(run.info.run_id, "evaluate/report.json")).read_text()
    )
    scores = {each["model"]: each["value"] for each in report["result"]["scores"]}
    assert scores.keys() == {"base", "judged-2", "judged@champion"}
    metrics = run.data.metrics
    assert metrics["evaluation/addsub/judged-2/accuracy"] == scores["judged-2"]
    assert metrics["evaluation/addsub/judged_champion/accuracy"] == scores["judged@champion"]
    assert metrics["progress/step"] == metrics["progress/total_steps"] == 3 * NUM_ROWS
    assert metrics["train/tokens_per_s"] > 0
    assert run.data.tags[RunTag.SUMMARY] == report["summary"]
    page = Path(registry.download_artifacts(run.info.run_id, "evaluate/report.md")).read_text()
    assert "| task | metric | base | judged-2 | judged@champion |" in page


def test_the_versions_carry_their_scores_and_the_alias_its_holder(
    run: Run, registry: MlflowClient, drivers: Drivers
) -> None:
    report = json.loads(
        Path(registry.download_artifacts(run.info.run_id, "evaluate/report.json")).read_text()
    )
    promotion = report["promotion"]
    assert promotion["decision"]["num_rows"] == NUM_ROWS
    expected = "2" if promotion["is_promoted"] else "1"
    assert str(registry.get_model_version_by_alias("judged", "champion").version) == expected
    for version in ("1", "2"):
        tag = registry.get_model_version("judged", version).tags["evaluation.addsub.accuracy"]
        assert tag.endswith(f", {NUM_ROWS} rows, {drivers.ticket.job_id}")
