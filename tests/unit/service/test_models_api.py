"""Registered models over HTTP: lists, versions, aliases, deletion."""

from typing import Any

import httpx
import pytest

from service.boundaries import DriverState
from tests.unit.service.stage import Stage

TAGS = {
    "hyplora.job_id": "job-0123456789abcdef",
    "base_model": "org/base",
    "base_model_digest": "commit:abc",
    "method": "hyplora",
    "rank": "8",
    "curvature": "2.5",
    "train_loss": "0.25",
    "steps": "12",
    "evaluation.exam.accuracy": "0.8000 [0.7000, 0.9000], 20 rows, job-00000000000000ff",
    "evaluation.exam.note": "somebody else's words",
}


async def put_alias(
    stage: Stage, version: object, alias: str = "champion", **headers: str
) -> httpx.Response:
    return await stage.client.put(
        f"/v1/models/sums/aliases/{alias}",
        json={"version": version},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def audited(stage: Stage) -> list[tuple[str, str]]:
    found = (await stage.get("/v1/audit"))["data"]
    return [
        (entry["action"], entry["target"])
        for entry in reversed(found)
        if entry["action"].startswith(("alias.", "model"))
    ]


async def test_models_are_listed_by_name_a_page_at_a_time(stage: Stage) -> None:
    for name in ("sums", "Zebra", "alphabet", "a b"):
        stage.registry.register(name, alias="champion")
    stage.registry.register("no:reference:can:hold:it")

    first = await stage.get("/v1/models?limit=3")
    rest = await stage.get("/v1/models?limit=3&after=alphabet")

    assert [model["name"] for model in first["data"]] == ["Zebra", "a b", "alphabet"]
    assert first["has_more"]
    assert [model["name"] for model in rest["data"]] == ["sums"]
    assert not rest["has_more"]


async def test_a_model_tells_its_aliases_and_newest_version(stage: Stage) -> None:
    stage.registry.register("sums", alias="champion")
    stage.registry.register("sums")

    assert await stage.get("/v1/models/sums") == {
        "name": "sums",
        "project": "default",
        "aliases": {"champion": 1},
        "newest_version": 2,
        "created_at": "2026-01-01T00:00:00Z",
        "links": {
            "self": "/v1/models/sums",
            "versions": "/v1/models/sums/versions",
            "mlflow_model": "http://127.0.0.1:5000/#/models/sums",
        },
    }


async def test_versions_are_listed_newest_first_a_page_at_a_time(stage: Stage) -> None:
    for _ in range(3):
        stage.registry.register("sums")

    first = await stage.get("/v1/models/sums/versions?limit=2")
    rest = await stage.get("/v1/models/sums/versions?limit=2&after=2")

    assert [version["version"] for version in first["data"]] == [3, 2]
    assert [version["version"] for version in rest["data"]] == [1]
    assert (first["has_more"], rest["has_more"]) == (True, False)


@pytest.mark.parametrize("selector", ["1", "@champion"])
async def test_a_version_is_found_by_number_and_by_alias_with_what_its_tags_tell(
    stage: Stage, selector: str
) -> None:
    stage.registry.register("sums", alias="champion", run_id="run9", tags=TAGS)

    assert await stage.get(f"/v1/models/sums/versions/{selector}") == {
        "name": "sums",
        "version": 1,
        "aliases": ["champion"],
        "uri": "models:/sums/1",
        "base_model": "org/base",
        "base_model_digest": "commit:abc",
        "method": "hyplora",
        "rank": 8,
        "curvature": 2.5,
        "job_id": "job-0123456789abcdef",
        "trial_id": None,
        "run_id": "run9",
        "scores": {"train_loss": 0.25, "steps": 12.0},
        "evaluations": [
            {
                "task": "exam",
                "metric": "accuracy",
                "value": 0.8,
                "low": 0.7,
                "high": 0.9,
                "num_rows": 20,
                "job_id": "job-00000000000000ff",
            }
        ],
        "created_at": "2026-01-01T00:01:00Z",
        "links": {
            "self": "/v1/models/sums/versions/1",
            "model": "/v1/models/sums",
            "lineage": "/v1/models/sums/versions/1/lineage",
            "download": "/v1/models/sums/versions/1/download",
            "job": "/v1/jobs/job-0123456789abcdef",
            "mlflow_version": "http://127.0.0.1:5000/#/models/sums/versions/1",
        },
    }


async def test_a_version_that_was_registered_by_hand_has_what_is_known(stage: Stage) -> None:
    stage.registry.register("sums", tags={"rank": "many"})

    version = await stage.get("/v1/models/sums/versions/1")

    assert (version["rank"], version["job_id"], version["scores"]) == (None, None, {})
    assert version["links"]["job"] is None


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/models/gone", "model-not-found"),
        ("/v1/models/gone/versions", "model-not-found"),
        ("/v1/models/a'b%00", "model-not-found"),
        ("/v1/models/sums/versions/2", "model-version-not-found"),
        ("/v1/models/sums/versions/0", "model-version-not-found"),
        ("/v1/models/sums/versions/champion", "model-version-not-found"),
        ("/v1/models/sums/versions/12345678901234567890", "model-version-not-found"),
        ("/v1/models/sums/versions/@best", "model-alias-not-found"),
        ("/v1/models/sums/versions/@", "model-alias-not-found"),
        ("/v1/models/sums/aliases/best", "model-alias-not-found"),
    ],
)
async def test_what_is_not_there_is_named_by_its_code(stage: Stage, path: str, code: str) -> None:
    stage.registry.register("sums", alias="champion")

    response = await stage.client.get(path)

    assert (response.status_code, response.json()["code"]) == (404, code)


async def test_a_registry_that_is_away_is_told(stage: Stage) -> None:
    stage.registry.is_away = True

    response = await stage.client.get("/v1/models")

    assert (response.status_code, response.json()["code"]) == (503, "mlflow-unavailable")


async def test_a_version_is_promoted_and_that_is_noted_once(stage: Stage) -> None:
    for _ in range(2):
        stage.registry.register("sums", alias="champion")

    answers = [await put_alias(stage, 1) for _ in range(2)]

    assert [answer.json() for answer in answers] == [
        {"name": "sums", "alias": "champion", "version": 1}
    ] * 2
    assert (await stage.get("/v1/models/sums"))["aliases"] == {"champion": 1}
    assert await audited(stage) == [("alias.set", "sums@champion")]


@pytest.mark.parametrize("alias", ["latest", "LATEST", "v3", "V12", "a.b", "1", "ä", "x" * 65])
async def test_an_alias_that_mlflow_refuses_is_refused_before(stage: Stage, alias: str) -> None:
    stage.registry.register("sums")

    response = await put_alias(stage, 1, alias)

    assert (response.status_code, response.json()["code"]) == (422, "request-invalid")
    assert response.json()["errors"][0]["field"] == "alias"


@pytest.mark.parametrize("version", [0, -1, "one", None, 2.5, 10**9])
async def test_what_is_no_number_of_a_version_is_refused(stage: Stage, version: object) -> None:
    stage.registry.register("sums")

    response = await put_alias(stage, version)

    assert (response.status_code, response.json()["code"]) == (422, "spec-invalid")
    assert response.json()["errors"][0]["field"] == "version"


async def test_a_version_that_is_not_there_is_not_promoted(stage: Stage) -> None:
    stage.registry.register("sums")

    response = await put_alias(stage, 2)

    assert (response.status_code, response.json()["code"]) == (404, "model-version-not-found")
    assert await audited(stage) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If_Match": '"1"'}, 200),
        ({"If_Match": '"7", "1"'}, 200),
        ({"If_Match": "*"}, 200),
        ({"If_Match": '"2"'}, 412),
        ({"If_Match": 'W/"1"'}, 412),
        ({"If_None_Match": "*"}, 412),
        ({"If_None_Match": '"1"'}, 412),
        ({"If_None_Match": '"2"'}, 200),
    ],
)
async def test_a_promotion_can_ask_for_where_the_alias_stands(
    stage: Stage, headers: dict[str, str], status: int
) -> None:
    stage.registry.register("sums", alias="champion")
    stage.registry.register("sums")
    known = await stage.client.get("/v1/models/sums/aliases/champion")
    assert (known.headers["ETag"], known.json()["version"]) == ('"1"', 1)

    response = await put_alias(stage, 2, **headers)

    assert response.status_code == status, response.text
    wanted = 2 if status == 200 else 1
    assert (await stage.get("/v1/models/sums"))["aliases"] == {"champion": wanted}
    if status == 200:
        assert response.headers["ETag"] == '"2"'
    else:
        assert response.json()["code"] == "precondition-failed"


@pytest.mark.parametrize(
    ("headers", "status"), [({"If_Match": "*"}, 412), ({"If_None_Match": "*"}, 200)]
)
async def test_a_promotion_can_ask_for_an_alias_that_is_new(
    stage: Stage, headers: dict[str, str], status: int
) -> None:
    stage.registry.register("sums")

    assert (await put_alias(stage, 1, **headers)).status_code == status


async def test_an_alias_is_removed_and_then_is_not_there(stage: Stage) -> None:
    stage.registry.register("sums", alias="champion")
    path = "/v1/models/sums/aliases/champion"

    stale = await stage.client.delete(path, headers={"If-Match": '"2"'})
    first, second = [await stage.client.delete(path) for _ in range(2)]

    assert stale.status_code == 412
    assert (first.status_code, first.content) == (204, b"")
    assert (second.status_code, second.json()["code"]) == (404, "model-alias-not-found")
    assert await audited(stage) == [("alias.remove", "sums@champion")]


async def test_a_version_with_an_alias_is_deleted_only_once_that_is_removed(stage: Stage) -> None:
    stage.registry.register("sums", alias="champion")
    path = "/v1/models/sums/versions/1"

    refused = await stage.client.delete(path)
    await stage.client.delete("/v1/models/sums/aliases/champion")
    deleted = await stage.client.delete(path)
    again = await stage.client.delete(path)

    assert (refused.status_code, refused.json()["code"]) == (409, "model-in-use")
    assert "champion" in refused.json()["detail"]
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (again.status_code, again.json()["code"]) == (404, "model-version-not-found")
    assert ("model_version.delete", "sums/1") in await audited(stage)


async def test_a_model_is_deleted_with_its_versions_once_it_has_no_alias(stage: Stage) -> None:
    stage.registry.register("sums", alias="champion")

    refused = await stage.client.delete("/v1/models/sums")
    await stage.client.delete("/v1/models/sums/aliases/champion")
    deleted = await stage.client.delete("/v1/models/sums")
    again = await stage.client.delete("/v1/models/sums")

    assert (refused.status_code, refused.json()["code"]) == (409, "model-in-use")
    assert deleted.status_code == 204
    assert (again.status_code, again.json()["code"]) == (404, "model-not-found")
    assert (await stage.get("/v1/models"))["data"] == []
    assert ("model.delete", "sums") in await audited(stage)


@pytest.mark.parametrize(
    ("changes", "begins", "is_kept"),
    [
        ({"base_model": "models:/sums/1"}, False, True),
        ({"base_model": "models:/sums/2"}, False, False),
        ({"base_model": "models:/sums/11"}, True, False),
        ({"models": ["base", "models:/sums/1"]}, False, True),
        ({"models": ["models:/sums@best"]}, False, False),
        ({"models": ["models:/sums@best"]}, True, True),
        ({"models": ["models:/sums/latest"]}, True, True),
        ({"models": ["models:/sums-2/1"]}, True, False),
    ],
)
async def test_a_version_that_a_live_job_needs_is_kept_until_the_job_ends(
    stage: Stage, changes: dict[str, Any], begins: bool, is_kept: bool
) -> None:
    stage.registry.register("sums")
    response = await stage.client.post("/v1/jobs", json=await stage.evaluate_spec(**changes))
    job_id = response.json()["id"]
    if begins:
        await stage.work()

    refused = await stage.client.delete("/v1/models/sums/versions/1")

    if not is_kept:
        assert refused.status_code == 204
        return
    assert (refused.status_code, refused.json()["code"]) == (409, "model-in-use")
    assert job_id in refused.json()["detail"]
    await stage.ask(job_id, "cancel")
    await stage.work(2)
    if begins:
        stage.ray.end(f"{job_id}-a1", DriverState.STOPPED)
        await stage.work(2)
    assert (await stage.client.delete("/v1/models/sums/versions/1")).status_code == 204


async def test_a_version_of_a_job_that_has_not_ended_is_kept(stage: Stage) -> None:
    job_id = await stage.started(name="other")
    stage.registry.register("sums", tags={"hyplora.job_id": job_id})

    refused = await stage.client.delete("/v1/models/sums/versions/1")

    assert (refused.status_code, refused.json()["code"]) == (409, "model-in-use")


@pytest.mark.parametrize(
    "changes", [{"name": "sums"}, {"name": "x", "registry": {"model_name": "sums"}}]
)
async def test_a_model_that_a_live_job_will_register_under_is_kept(
    stage: Stage, changes: dict[str, Any]
) -> None:
    job_id = await stage.submit(**changes)
    stage.registry.register("sums")

    refused = await stage.client.delete("/v1/models/sums")

    assert (refused.status_code, refused.json()["code"]) == (409, "model-in-use")
    assert job_id in refused.json()["detail"]
    await stage.ask(job_id, "cancel")
    assert (await stage.client.delete("/v1/models/sums")).status_code == 204
