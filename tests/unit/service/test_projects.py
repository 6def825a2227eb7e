"""Nobody sees or changes what belongs to another project: every route is tried."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from service.callers import Scope
from service.key_tokens import KeyToken
from tests.unit.service.stage import ROWS, Stage

OWNER = KeyToken("key-00000000000000aa", "O" * 43)
STRANGER = KeyToken("key-00000000000000bb", "S" * 43)
STRANGER_HEADERS = {"Authorization": f"Bearer {STRANGER.text}"}

FOR_ADMINISTRATORS = ("/v1/keys", "/v1/audit")
OF_NOBODY = {("GET", "/v1/info"), ("GET", "/v1/capabilities")}
MAKING_OWN = {
    ("POST", "/v1/jobs"),
    ("POST", "/v1/files"),
    ("POST", "/openai/v1/fine_tuning/jobs"),
    ("POST", "/openai/v1/files"),
}
"""Routes that make something of the caller's own; each has a test below."""
BODIES = {("PUT", "/v1/models/{model_name}/aliases/{alias}"): {"version": 1}}
"""Bodies of changes that need one; others have none, or may be empty."""
NOT_FOUND = {"job-not-found", "file-not-found", "model-not-found"}
SHOWING = {
    f"{prefix}/{kind}"
    for prefix, kinds in {
        "/v1": ["jobs", "files", "models"],
        "/openai/v1": ["fine_tuning/jobs", "files", "models"],
    }.items()
    for kind in kinds
}
"""Lists in which the owner finds something."""


@dataclass(frozen=True)
class Owned:
    """What the owner has: one thing for each name that a path can hold."""

    job_id: str
    file_id: str
    fine_tuning_job_id: str = "job-0000000000000000"
    trial_id: str = "trial-0001"
    name: str = "report.json"
    file_path: str = "job.json"
    model_name: str = "sums"
    version: str = "1"
    alias: str = "champion"
    model: str = "sums:1"

    def path(self, template: str) -> str:
        return template.format_map(vars(self))


@contextmanager
def asking_as(stage: Stage, token: KeyToken) -> Iterator[None]:
    before = stage.client.headers["Authorization"]
    stage.client.headers["Authorization"] = f"Bearer {token.text}"
    try:
        yield
    finally:
        stage.client.headers["Authorization"] = before


@pytest.fixture
async def owned(stage: Stage) -> Owned:
    """A search with a trial, a report and a registered adapter, its rows, and a fine-tune."""
    await stage.admit(OWNER, Scope.SUBMIT, project="ours")
    await stage.admit(STRANGER, Scope.SUBMIT, project="theirs")
    with asking_as(stage, OWNER):
        spec = await stage.search_spec()
        job_id = await stage.begin(spec)
        fine_tuning_job_id = await stage.submit(train=spec["data"]["train"])
    run_id = stage.run_id(job_id)
    values = json.dumps({"adapter.r": 8})
    stage.mlflow.add_child(
        run_id, {}, TRIAL_ID="trial-0001", TRIAL_VALUES=values, TRIAL_STATE="running"
    )
    for name in ("report.json", "report.md"):
        stage.mlflow.files[run_id, f"search/{name}"] = b"{}"
    stage.mlflow.files[run_id, "job.json"] = b"{}"
    stage.registry.register("sums", alias="champion", run_id=run_id)
    return Owned(job_id, spec["data"]["train"], fine_tuning_job_id)


async def routes(stage: Stage) -> list[tuple[str, str]]:
    paths = (await stage.get("/openapi.json"))["paths"]
    return [
        (method.upper(), path)
        for path, methods in paths.items()
        for method in methods
        if path.startswith(("/v1", "/openai/v1")) and not path.startswith(FOR_ADMINISTRATORS)
    ]


async def job_ids(stage: Stage) -> set[str]:
    return {job["id"] for job in (await stage.get("/v1/jobs"))["data"]}


async def test_every_route_hides_what_belongs_to_another_project(
    stage: Stage, owned: Owned
) -> None:
    before = await stage.job(owned.job_id)

    for method, template in await routes(stage):
        if (method, template) in OF_NOBODY | MAKING_OWN:
            continue
        body = None if method == "GET" else BODIES.get((method, template), {})
        response = await stage.client.request(
            method, owned.path(template), json=body, headers=STRANGER_HEADERS
        )

        if "{" in template:
            assert response.status_code == 404, (method, template, response.text)
            assert response.json()["code"] in NOT_FOUND, template
        else:
            assert response.json()["data"] == [], (method, template)

    assert await stage.job(owned.job_id) == before


async def test_every_route_shows_its_owner_what_it_hides_from_others(
    stage: Stage, owned: Owned
) -> None:
    with asking_as(stage, OWNER):
        for method, template in await routes(stage):
            body = None if method == "GET" else BODIES.get((method, template), {})
            response = await stage.client.request(method, owned.path(template), json=body)

            assert response.status_code != 404, (method, template, response.text)
            if method == "GET" and template in SHOWING:
                assert response.json()["data"], template


@pytest.mark.parametrize(
    "path", ["/v1/jobs/{job_id}", "/v1/files/{file_id}", "/v1/models/{model_name}"]
)
async def test_what_belongs_to_another_project_is_answered_like_what_is_not_there(
    stage: Stage, owned: Owned, path: str
) -> None:
    missing = Owned("job-0000000000000000", "file-0000000000000000", model_name="nothing")

    foreign = await stage.client.get(owned.path(path), headers=STRANGER_HEADERS)
    unknown = await stage.client.get(missing.path(path), headers=STRANGER_HEADERS)

    foreign_id, unknown_id = (each.path(path).rpartition("/")[2] for each in (owned, missing))
    first, second = foreign.json(), unknown.json()
    assert first["detail"].replace(foreign_id, unknown_id) == second["detail"]
    assert first["code"] == second["code"]


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/v1/jobs/{job_id}/events", "text/event-stream"),
        ("/v1/jobs/{job_id}/logs?follow=true", "*/*"),
        ("/v1/jobs?after={job_id}", "*/*"),
        ("/v1/files?after={file_id}", "*/*"),
    ],
)
async def test_streams_and_pages_do_not_begin_at_what_belongs_to_another_project(
    stage: Stage, owned: Owned, path: str, accept: str
) -> None:
    headers = STRANGER_HEADERS | {"Accept": accept}

    response = await stage.client.get(owned.path(path), headers=headers)

    assert response.status_code == 404


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
async def test_a_job_cannot_train_on_rows_of_another_project(
    stage: Stage, owned: Owned, query: str
) -> None:
    spec = await stage.spec(train=owned.file_id)

    response = await stage.client.post(f"/v1/jobs{query}", json=spec, headers=STRANGER_HEADERS)

    assert response.status_code == 404
    assert response.json()["code"] == "file-not-found"


async def test_what_a_key_makes_belongs_to_its_project(stage: Stage, owned: Owned) -> None:
    with asking_as(stage, STRANGER):
        file_id = await stage.upload(ROWS)
        job_id = await stage.submit(name="of-theirs")

    with asking_as(stage, OWNER):
        assert (await stage.client.get(f"/v1/files/{file_id}")).status_code == 404
        assert (await stage.client.get(f"/v1/jobs/{job_id}")).status_code == 404
        assert await job_ids(stage) == {owned.job_id, owned.fine_tuning_job_id}


async def test_an_administrator_sees_and_changes_those_of_every_project(
    stage: Stage, owned: Owned
) -> None:
    own_id = await stage.submit()

    assert await job_ids(stage) == {owned.job_id, owned.fine_tuning_job_id, own_id}
    assert (await stage.get(f"/v1/files/{owned.file_id}"))["project"] == "ours"
    assert (await stage.ask(owned.job_id, "cancel"))["status"] == "cancelling"


async def test_a_fine_tune_cannot_train_on_rows_of_another_project(
    stage: Stage, owned: Owned
) -> None:
    body = {"model": "tiny", "training_file": owned.file_id}

    response = await stage.client.post(
        "/openai/v1/fine_tuning/jobs", json=body, headers=STRANGER_HEADERS
    )

    assert response.status_code == 404
    assert response.json()["code"] == "file-not-found"
