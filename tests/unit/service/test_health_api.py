import asyncio
from importlib.metadata import version

import pytest

from tests.unit.service.stage import Stage


async def test_a_living_service_says_so_whatever_is_away(stage: Stage) -> None:
    stage.ray.is_away = stage.mlflow.is_away = True

    assert await stage.get("/healthz") == {"status": "ok", "version": version("hyplora")}


async def test_a_service_is_ready_when_everything_answers(stage: Stage) -> None:
    ready = await stage.get("/readyz")

    assert ready["status"] == "ok"
    assert {name: check["ok"] for name, check in ready["checks"].items()} == {
        "database": True,
        "ray": True,
        "mlflow": True,
    }


@pytest.mark.parametrize("part", ["ray", "mlflow"])
async def test_a_service_that_is_not_ready_names_what_is_away(stage: Stage, part: str) -> None:
    getattr(stage, part).is_away = True

    response = await stage.client.get("/readyz")

    assert response.status_code == 503
    answer = response.json()
    assert answer["status"] == "unavailable"
    assert [name for name, check in answer["checks"].items() if not check["ok"]] == [part]
    assert "out of reach" in answer["checks"][part]["detail"]


async def test_a_crowd_of_probes_asks_each_part_once(stage: Stage) -> None:
    await asyncio.gather(*(stage.client.get("/readyz") for _ in range(20)))

    assert stage.fault.num_calls == 2


async def test_a_client_learns_where_the_registry_is(stage: Stage) -> None:
    assert await stage.get("/v1/info") == {
        "version": version("hyplora"),
        "mlflow_tracking_uri": "http://127.0.0.1:5000",
        "ray_dashboard_url": "http://127.0.0.1:8265",
    }
