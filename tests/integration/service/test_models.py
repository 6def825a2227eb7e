"""Registered models from a real MLflow server, over real HTTP, into a real PEFT model."""

import asyncio
import io
import os
import socket
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import mlflow
import pytest
import torch
import uvicorn
from mlflow import MlflowClient
from peft import PeftModel

from deploy.home import StackPorts
from deploy.local import LocalStack
from jobs.registry import register_adapter
from service.cli.adapters import ModelReference, pull_adapter
from service.client import Client, ProblemError
from service.errors import MlflowUnavailableError
from service.mlflow_server import MlflowServer
from service.model_registry import MlflowRegistry
from tests.unit.service.stage import TOKEN, Stage, make_settings
from workers.adapter import build_adapter, save_adapter
from workers.base_model import load_base_model
from workers.specs import HypLoraSpec

pytestmark = pytest.mark.integration

LINEAGE = {"base_model": "tiny", "method": "hyplora", "rank": "4", "curvature": "2"}


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalStack(tmp_path_factory.mktemp("home"), StackPorts(0, 0, 0)) as stack:
        stack.start_mlflow()
        stack.await_ready("mlflow")
        yield stack.mlflow_url
        mlflow.set_tracking_uri("")


@pytest.fixture
def registry(mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> MlflowRegistry:
    # What the constructor puts into the environment is for the service's process alone.
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "10")
    return MlflowRegistry(MlflowServer(mlflow_url))


@pytest.fixture
async def stage(tmp_path: Path, mlflow_url: str, registry: MlflowRegistry) -> AsyncIterator[Stage]:
    """A service whose runs are fakes and whose registry is real."""
    stage = Stage(make_settings(tmp_path / "service", mlflow_tracking_uri=mlflow_url))
    stage.registry = registry  # type: ignore[assignment]
    async with stage:
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[Client]:
    """The client of the service, which listens on a port."""
    config = uvicorn.Config(stage.app, lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN) as client:
            yield client
        server.should_exit = True
        await serving


def save_random_adapter(tiny_model_dir: Path, folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    base = load_base_model(str(tiny_model_dir), "auto")
    save_adapter(build_adapter(base, HypLoraSpec(r=4, init_weights=False)), folder)
    return folder


def register(url: str, folder: Path, name: str, alias: str | None = None) -> int:
    registering = MlflowClient(tracking_uri=url)
    run_id = registering.create_run("0").info.run_id
    version = register_adapter(registering, run_id, folder, name, LINEAGE, alias)
    return int(version.version)


async def test_an_adapter_is_promoted_pulled_and_deleted_when_nothing_needs_it(
    stage: Stage, client: Client, mlflow_url: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    first, second = (save_random_adapter(tiny_model_dir, tmp_path / n, int(n)) for n in "12")
    register(mlflow_url, first, "sums", "champion")
    register(mlflow_url, second, "sums")

    page = await stage.get("/v1/models")
    (versions, pulled, refused) = await asyncio.to_thread(_use, client, tmp_path / "pulled")

    assert [(model["name"], model["aliases"]) for model in page["data"]] == [
        ("sums", {"champion": 1})
    ]
    assert [(each.version, each.aliases, each.rank, each.curvature) for each in versions] == [
        (2, [], 4, 2.0),
        (1, ["champion"], 4, 2.0),
    ]
    assert {path.name for path in pulled.iterdir()} >= {"adapter_model.safetensors"}
    assert answer(tiny_model_dir, pulled).equal(answer(tiny_model_dir, second))
    assert not answer(tiny_model_dir, pulled).equal(answer(tiny_model_dir, first))
    assert refused == ["model-in-use", "precondition-failed"]
    left = (await stage.get("/v1/models/sums/versions"))["data"]
    assert [version["version"] for version in left] == [2]


def _use(client: Client, folder: Path) -> tuple[list, Path, list[str]]:  # type: ignore[type-arg]
    """Promote the second version, pull it by its alias, and delete the first."""
    models, refused = client.models, []
    versions = models.list_versions("sums").data
    for attempt in (
        lambda: models.delete_version("sums", 1),
        lambda: models.promote("sums", "champion", 2, only_from=2),
    ):
        with pytest.raises(ProblemError) as refusal:
            attempt()
        refused.append(refusal.value.code)
    models.promote("sums", "champion", 2, only_from=1)
    pull_adapter(ModelReference.parse("sums@champion"), client, folder)
    models.delete_version("sums", 1)
    return versions, folder, refused


def answer(tiny_model_dir: Path, folder: Path) -> torch.Tensor:
    base = load_base_model(str(tiny_model_dir), "auto")
    model = PeftModel.from_pretrained(base, str(folder)).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([[1, 2, 3]])).logits
    return logits


async def test_a_download_holds_neither_code_nor_pickles_and_is_the_same_each_time(
    stage: Stage, mlflow_url: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = save_random_adapter(tiny_model_dir, tmp_path / "adapter", 1)
    (folder / "evil.pkl").write_bytes(b"x")
    (folder / "tokenizer.json").write_text("{}")
    register(mlflow_url, folder, "bare", "champion")
    path = "/v1/models/bare/versions/@champion/download"

    first, second = [(await stage.client.get(path)).content for _ in range(2)]

    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        names = tar.getnames()
    assert names == ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]
    lineage = await stage.get("/v1/models/bare/versions/1/lineage")
    assert {node["kind"] for node in lineage["nodes"]} == {"base_model", "run", "model_version"}


async def test_the_registry_is_read_page_by_page_and_what_is_missing_is_none(
    mlflow_url: str, registry: MlflowRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.model_registry._MODELS_PER_PAGE", 2)
    own = MlflowClient(mlflow_url)
    for name in ("m1", "m2", "m3", "m4", "m5"):
        own.create_registered_model(name)
    run = own.create_run("0").info
    source = f"{run.artifact_uri}/x"
    for _ in range(3):
        own.create_model_version("m1", source, run.run_id)
    await registry.set_alias("m1", "champion", 2)

    found = {model.name: model for model in await registry.models()}

    assert {"m1", "m2", "m3", "m4", "m5"} <= found.keys()
    assert (found["m1"].newest_version, found["m1"].aliases) == (3, {"champion": 2})
    assert found["m2"].newest_version is None
    assert await registry.model("m1") == found["m1"]
    assert [each.version for each in await registry.versions("m1", 2)] == [3, 2]
    assert [each.version for each in await registry.versions("m1", 2, below=2)] == [1]
    assert await registry.versions("gone", 2) == []
    assert await registry.model("gone") is None
    assert await registry.version("gone", 1) is None
    assert await registry.version("m1", 9) is None
    await registry.remove_alias("m1", "champion")
    await registry.remove_alias("m1", "champion")
    await registry.delete_version("m1", 3)
    own.create_model_version("m1", source, run.run_id)
    assert [each.version for each in await registry.versions("m1", 9)] == [4, 2, 1]
    await registry.delete_model("m1")
    assert await registry.model("m1") is None


async def test_a_registry_that_is_not_there_is_unavailable() -> None:
    before = dict(os.environ)
    try:
        registry = MlflowRegistry(MlflowServer("http://127.0.0.1:9"))
        for call in (registry.models(), registry.model("a"), registry.version("a", 1)):
            with pytest.raises(MlflowUnavailableError, match="Connection refused"):
                await call
    finally:
        os.environ.clear()
        os.environ.update(before)
