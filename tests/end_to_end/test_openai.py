"""OpenAI's own Python client, and the command line that it had, against the real stack."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from deploy.local import LocalStack
from service.client import Client
from tests.end_to_end.test_readme import HUB_MODEL

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAGE = (Path(__file__).parents[2] / "docs/openai.md").read_text()
LAST_WITH_CLI = ("openai==2.34.0", "distro==1.9.0")


@dataclass(frozen=True)
class Address:
    """Where OpenAI's programs find the service."""

    base_url: str
    api_key: str

    def run(self, *arguments: str, **variables: str) -> str:
        """Run a Python program that knows the address; returns what it printed."""
        names = {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": self.api_key}
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **names, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def address(stack: LocalStack) -> Address:
    return Address(f"{stack.api_url}/openai/v1", stack.token)


@pytest.fixture(scope="module")
def sdk(address: Address) -> Iterator[OpenAI]:
    with OpenAI(base_url=address.base_url, api_key=address.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def printed(address: Address, tiny_model_dir: Path) -> str:
    """What the example of docs/openai.md prints, with a tiny model in the place of its own."""
    example = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0]
    return address.run("-c", example.replace(HUB_MODEL, str(tiny_model_dir)))


@pytest.fixture(scope="module")
def job(printed: str, sdk: OpenAI) -> FineTuningJob:
    """The job of the example."""
    job_id, _ = printed.split(maxsplit=1)
    return sdk.fine_tuning.jobs.retrieve(job_id)


def test_the_example_of_the_page_trains_and_finds_its_adapter(
    printed: str, job: FineTuningJob, client: Client
) -> None:
    assert (job.status, job.error) == ("succeeded", None)
    assert f"Model(id='{job.fine_tuned_model}'" in printed
    record = client.get_job(job.id)
    assert record.model_version is not None
    version = record.model_version.version
    assert job.fine_tuned_model == f"openai-capitals:{version}"
    assert record.spec["adapter"]["curvature"] == 2.0
    assert record.spec["metadata"] == {"team": "geography"}


def test_the_job_trains_with_the_hyperparameters_that_it_answers(
    job: FineTuningJob, client: Client
) -> None:
    record = client.get_job(job.id)
    training = record.spec["training"]
    assert job.hyperparameters.to_dict() == {
        "n_epochs": 6,
        "batch_size": 2,
        "learning_rate_multiplier": 1.0,
    }
    assert (training["num_epochs"], training["batch_size"]) == (6, 2)
    assert training["learning_rate"] == 3e-4
    assert record.progress is not None
    assert record.progress.step == 6 * 4 / 2


def test_every_token_of_every_epoch_is_counted(job: FineTuningJob, client: Client) -> None:
    summary = client.get_job(job.id).data_summary
    assert summary is not None
    tokens = re.search(r"([\d,]+) tokens", summary)
    assert tokens is not None
    assert job.trained_tokens == 6 * int(tokens[1].replace(",", ""))


def test_the_history_tells_of_statuses_and_metrics_newest_first(
    job: FineTuningJob, sdk: OpenAI
) -> None:
    events = list(sdk.fine_tuning.jobs.list_events(job.id, limit=2))
    assert (events[0].message, events[-1].message) == ("The job is succeeded", "The job is queued")
    metrics = [event.data for event in events if event.type == "metrics"]
    assert isinstance(metrics[0], dict)
    assert metrics[0]["step"] == 12
    assert metrics[0]["train_loss"] > 0


def test_the_checkpoints_and_the_table_of_losses_end_at_the_last_step(
    job: FineTuningJob, sdk: OpenAI
) -> None:
    newest = sdk.fine_tuning.jobs.checkpoints.list(job.id).data[0]
    assert newest.step_number == 12
    assert newest.fine_tuned_model_checkpoint == job.fine_tuned_model
    head, *lines = sdk.files.content(job.result_files[0]).text.splitlines()
    assert head == "step,train_loss,full_valid_loss"
    assert [int(line.split(",")[0]) for line in lines] == list(range(1, 13))
    assert float(lines[-1].split(",")[1]) == pytest.approx(newest.metrics.train_loss)


def test_the_adapter_is_deleted_once_no_alias_points_at_it(
    job: FineTuningJob, sdk: OpenAI, client: Client
) -> None:
    model = job.fine_tuned_model
    assert model is not None
    assert sdk.models.retrieve("openai-capitals@champion").id == model
    assert model in [each.id for each in sdk.models.list()]
    with pytest.raises(openai.ConflictError) as refused:
        sdk.models.delete(model)
    assert refused.value.code == "model-in-use"
    client.models.remove_alias("openai-capitals", "champion")
    assert sdk.models.delete(model).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve(model)


def test_the_file_is_read_back_and_deleted(job: FineTuningJob, sdk: OpenAI) -> None:
    rows = sdk.files.content(job.training_file).text.splitlines()
    assert [json.loads(row)["messages"][1]["content"] for row in rows] == [
        "Paris",
        "Tokyo",
        "Nairobi",
        "Lima",
    ]
    assert sdk.files.delete(job.training_file).deleted


@pytest.fixture(scope="module")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the last release of OpenAI's package that had a command line."""
    folder = tmp_path_factory.mktemp("openai-with-cli")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*install, *LAST_WITH_CLI], capture_output=True, text=True, check=False)
    if done.returncode != 0 and not os.environ.get("CI"):
        pytest.skip(f"PyPI does not hand out {LAST_WITH_CLI[0]}: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder


def test_openais_command_line_works(
    address: Address, command_line: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    def api(*arguments: str) -> Any:
        where = ["-b", address.base_url, "-k", address.api_key]
        printed = address.run(
            "-m", "openai", *where, "api", *arguments, PYTHONPATH=str(command_line)
        )
        return json.loads(printed)

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "2 + 2 =", "completion": " 4"}\n')

    file = api("files.create", "-f", str(rows), "-p", "fine-tune")
    given = ["-m", str(tiny_model_dir), "-F", file["id"], "-s", "by-cli", "-H", '{"n_epochs": 2}']
    job = api("fine_tuning.jobs.create", *given)
    listed = api("fine_tuning.jobs.list", "-l", "5")
    found = api("fine_tuning.jobs.retrieve", "-i", job["id"])
    ended = api("fine_tuning.jobs.cancel", "-i", job["id"])
    events = api("fine_tuning.jobs.list_events", "-i", job["id"])

    assert (file["filename"], file["status"]) == ("rows.jsonl", "processed")
    assert job["hyperparameters"]["n_epochs"] == 2
    assert job["id"] in [each["id"] for each in listed["data"]]
    assert found["id"] == ended["id"] == job["id"]
    assert events["data"][-1]["message"] == "The job is queued"
    assert isinstance(api("models.list"), dict)
