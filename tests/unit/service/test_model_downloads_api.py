"""Adapters as tars, and what they come from."""

import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest

from service.errors import RefusedError
from tests.unit.service.fake_registry import ADAPTER, SAFETENSORS
from tests.unit.service.stage import Stage

DOWNLOAD = "/v1/models/sums/versions/1/download"


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {
            entry.name: file.read()
            for entry in tar.getmembers()
            if (file := tar.extractfile(entry)) is not None
        }


async def test_a_download_is_a_tar_of_the_adapter_and_its_tokenizer_alone(stage: Stage) -> None:
    kept = {**ADAPTER, "tokenizer.json": b"{}", "chat_template.jinja": b"x", "README.md": b"# x"}
    left = dict.fromkeys(("MLmodel", "requirements.txt", "python_env.yaml", "x.json"), b"x")
    weights = {"adapter_model.bin": pickle.dumps(1), "optimizer.pt": b"x", "code/a.py": b"x"}
    stage.registry.register("sums", alias="champion", files={**left, **kept, **weights})

    answer = await stage.client.get("/v1/models/sums/versions/@champion/download")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-tar"
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''sums-1.tar"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert members(answer.content) == kept


async def test_a_version_makes_the_same_bytes_whatever_the_order_of_its_files(
    stage: Stage,
) -> None:
    stage.registry.register("sums")
    first = (await stage.client.get(DOWNLOAD)).content
    stage.registry.contents["sums", 1] = dict(reversed(ADAPTER.items()))

    second = (await stage.client.get(DOWNLOAD)).content

    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        for entry in tar:
            assert (entry.isreg(), entry.mode, entry.uid, entry.gid) == (True, 0o644, 0, 0)
            assert (entry.mtime, entry.uname, entry.gname) == (0, "", "")


@pytest.mark.parametrize(
    "files",
    [
        {"model.pkl": b"x"},
        {"adapter_config.json": b"{}"},
        {"adapter_model.safetensors": SAFETENSORS},
        {"adapter_config.json": b"{}", "adapter_model.bin": b"x"},
        {"adapter_config.json": b"{}", "adapter_model.safetensors": pickle.dumps({"a": 1})},
        {"adapter_config.json": b"{}", "adapter_model.safetensors": b""},
        {"inner/adapter_config.json": b"{}", "inner/adapter_model.safetensors": SAFETENSORS},
    ],
)
async def test_a_version_without_an_adapter_in_safetensors_is_not_handed_out(
    stage: Stage, files: Mapping[str, bytes]
) -> None:
    stage.registry.register("sums", files=files)

    answer = await stage.client.get(DOWNLOAD)

    assert (answer.status_code, answer.json()["code"]) == (404, "model-version-without-adapter")


async def test_files_that_are_gone_from_mlflow_are_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.registry.register("sums")

    async def refuse(*_: object) -> None:
        raise RefusedError("MLflow refused: no such artifact")

    monkeypatch.setattr(stage.registry, "fetch", refuse)

    answer = await stage.client.get(DOWNLOAD)

    assert (answer.status_code, answer.json()["code"]) == (404, "model-version-not-found")


async def test_a_full_disk_is_told_and_nothing_is_left_on_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    stage.registry.register("sums")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = set(tmp_path.iterdir())
    monkeypatch.setattr(tarfile.TarFile, "addfile", fail)

    answer = await stage.client.get(DOWNLOAD)

    assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")
    assert set(tmp_path.iterdir()) == before


async def lineage(stage: Stage) -> tuple[dict[str, Any], set[tuple[str, str, str]]]:
    """Nodes by id, and edges as source, relation and target."""
    answer = await stage.get("/v1/models/sums/versions/1/lineage")
    nodes = {node["id"]: node for node in answer["nodes"]}
    assert len(nodes) == len(answer["nodes"])
    edges = {(edge["source"], edge["relation"], edge["target"]) for edge in answer["edges"]}
    assert {end for source, _, target in edges for end in (source, target)} <= nodes.keys()
    return nodes, edges


async def test_the_lineage_of_a_version_leads_from_data_over_jobs_to_evaluations(
    stage: Stage,
) -> None:
    first = await stage.submit()
    rerun = await stage.client.post(f"/v1/jobs/{first}/rerun", json={})
    job_id = rerun.json()["id"]
    file_id = rerun.json()["spec"]["data"]["train"]
    spec = await stage.evaluate_spec(models=["models:/sums/1"])
    judge = (await stage.client.post("/v1/jobs", json=spec)).json()["id"]
    tags = {
        "hyplora.job_id": job_id,
        "train_sha256": "a" * 64,
        "validation_source": json.dumps({"dataset": "openai/gsm8k", "split": "test"}),
        "base_model": "models:/base/4",
        "base_model_digest": "sha256:b",
        "spec_sha256": "c" * 64,
        "code_version": "0.1.0",
        "evaluation.exam.accuracy": f"0.8000 [0.7000, 0.9000], 20 rows, {judge}",
        "evaluation.old.accuracy": "0.1000 [0.0000, 0.2000], 9 rows, job-0000000000000000",
    }
    stage.registry.register("sums", run_id="run5", tags=tags)

    nodes, edges = await lineage(stage)

    hub = tags["validation_source"]
    assert edges == {
        (first, "rerun", job_id),
        (f"sha256:{'a' * 64}", "train", job_id),
        (hub, "validation", job_id),
        ("models:/base/4", "base_model", job_id),
        (f"spec:{'c' * 64}", "spec", job_id),
        ("code:0.1.0", "code", job_id),
        (job_id, "tracked", "runs:/run5"),
        ("runs:/run5", "registered", "models:/sums/1"),
        ("models:/sums/1", "evaluated", judge),
    }
    rows = nodes[f"sha256:{'a' * 64}"]
    assert (rows["name"], rows["link"], rows["digest"]) == (
        file_id,
        f"/v1/files/{file_id}",
        "a" * 64,
    )
    assert nodes[hub]["name"] == "openai/gsm8k"
    assert nodes["models:/base/4"]["link"] == "/v1/models/base/versions/4"
    assert nodes["models:/base/4"]["digest"] == "sha256:b"


async def test_the_lineage_of_a_searchs_version_names_the_trial(stage: Stage) -> None:
    response = await stage.client.post("/v1/jobs", json=await stage.search_spec())
    job_id = response.json()["id"]
    tags = {"hyplora.job_id": job_id, "hyplora.trial_id": "trial-0003"}
    stage.registry.register("sums", run_id="run5", tags=tags)

    nodes, edges = await lineage(stage)

    trial = f"{job_id}/trial-0003"
    assert nodes[trial]["link"] == f"/v1/jobs/{job_id}/trials/trial-0003"
    assert {(job_id, "tried", trial), (trial, "tracked", "runs:/run5")} <= edges


async def test_a_version_of_an_unknown_job_has_what_its_tags_tell(stage: Stage) -> None:
    tags = {"hyplora.job_id": "job-0123456789abcdef", "base_model": "org/base"}
    stage.registry.register("sums", tags=tags)

    nodes, edges = await lineage(stage)

    assert nodes.keys() == {"models:/sums/1", "org/base"}
    assert edges == {("org/base", "base_model", "models:/sums/1")}
