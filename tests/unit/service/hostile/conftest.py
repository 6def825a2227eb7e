from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.service.stage import Stage, make_settings


def stored_files(stage: Stage) -> list[Path]:
    """Everything that lies in the storage of uploads."""
    return [path for path in stage.settings.files_dir.rglob("*") if path.is_file()]


@pytest.fixture
async def stage(tmp_path: Path, database_url: str) -> AsyncIterator[Stage]:
    """A service that waits for the validation of an upload however long it takes."""
    settings = make_settings(tmp_path, database_url=database_url, upload_wait_s=500)
    async with Stage(settings) as stage:
        yield stage


@pytest.fixture
async def unmoved(stage: Stage) -> AsyncIterator[Stage]:
    """A service that has kept nothing, and still answers, when the test is over."""
    assert await _kept(stage) == {}
    yield stage
    assert await _kept(stage) == {}
    assert (await stage.client.get("/healthz")).status_code == 200


async def _kept(stage: Stage) -> dict[str, object]:
    """Whatever requests have left: records, bytes, entries of changes that were made."""
    jobs, files = await stage.get("/v1/jobs"), await stage.get("/v1/files")
    changes = [
        entry for entry in (await stage.get("/v1/audit"))["data"] if entry["outcome"] == "done"
    ]
    left = {
        "jobs": jobs["data"],
        "files": files["data"],
        "bytes": stored_files(stage),
        "changes": changes,
        "runs": list(stage.mlflow.runs),
        "drivers": list(stage.ray.drivers),
    }
    return {what: found for what, found in left.items() if found}
