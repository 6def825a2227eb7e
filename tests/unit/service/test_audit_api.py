import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.callers import Scope
from service.key_tokens import KeyToken
from tests.unit.service.stage import KEY, ROW, Stage

READER = KeyToken("key-00000000000000aa", "R" * 43)


async def entries(stage: Stage, query: str = "") -> list[dict[str, Any]]:
    """What the audit log says, oldest first."""
    page = await stage.get(f"/v1/audit{query}")
    return list(reversed(page["data"]))


async def test_every_change_of_a_job_and_a_file_is_noted_with_key_and_request(
    stage: Stage,
) -> None:
    file_id = await stage.upload()
    job_id = await stage.started(train=file_id)
    await stage.pause(job_id)
    await stage.ask(job_id, "resume")
    response = await stage.client.post(f"/v1/jobs/{job_id}/cancel")

    noted = await entries(stage)

    assert [(entry["action"], entry["target"]) for entry in noted] == [
        ("file.create", file_id),
        ("job.submit", job_id),
        ("job.pause", job_id),
        ("job.resume", job_id),
        ("job.cancel", job_id),
    ]
    assert {entry["key_id"] for entry in noted} == {KEY.key_id}
    assert {(entry["outcome"], entry["project"]) for entry in noted} == {("done", "default")}
    assert noted[-1]["request_id"] == response.headers["X-Request-ID"]


async def test_a_trial_that_is_cancelled_is_noted(stage: Stage) -> None:
    job_id = await stage.begin(await stage.search_spec())
    values = json.dumps({"adapter.r": 8})
    stage.mlflow.add_child(
        stage.run_id(job_id), {}, TRIAL_ID="trial-0001", TRIAL_VALUES=values, TRIAL_STATE="running"
    )

    for _ in range(2):
        await stage.client.post(f"/v1/jobs/{job_id}/trials/trial-0001/cancel")

    noted = await entries(stage, "?action=trial.cancel")
    assert [entry["target"] for entry in noted] == [f"{job_id}/trial-0001"]


async def test_keys_are_noted_by_id_and_never_by_secret(stage: Stage) -> None:
    made = (await stage.client.post("/v1/keys", json={"name": "secret name"})).json()
    for _ in range(2):
        await stage.client.post(f"/v1/keys/{made['id']}/revoke")

    noted = await entries(stage)

    assert [(entry["action"], entry["target"]) for entry in noted] == [
        ("key.create", made["id"]),
        ("key.revoke", made["id"]),
    ]
    assert made["key"].rpartition("_")[2] not in str(noted)


async def test_a_change_that_cannot_be_noted_is_not_made(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()

    def fail(*_: object) -> None:
        raise RuntimeError("no entry can be made")

    with monkeypatch.context() as outage:
        outage.setattr("service.lifecycle.record", fail)
        assert (await stage.client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 500

    assert (await stage.job(job_id))["status"] == "queued"


async def test_what_changes_nothing_is_not_noted(stage: Stage) -> None:
    spec = await stage.spec()
    job_id = await stage.submit(train=spec["data"]["train"])
    await stage.ask(job_id, "cancel")
    before = await entries(stage)

    await stage.client.post(f"/v1/jobs/{job_id}/cancel")
    await stage.client.post("/v1/jobs", json={"kind": "nothing"})
    await stage.client.post("/v1/files", files={"file": ("rows.jsonl", b"no row")})
    await stage.get("/v1/jobs")
    await stage.work()

    assert await entries(stage) == before


async def test_a_change_that_a_key_may_not_make_is_noted_as_refused(stage: Stage) -> None:
    await stage.admit(READER, Scope.READ, project="sums")
    headers = {"Authorization": f"Bearer {READER.text}"}

    await stage.client.post("/v1/jobs/a%20b%00/cancel", json={"secret": "s"}, headers=headers)
    await stage.client.get("/v1/keys", headers=headers)

    (noted,) = await entries(stage)
    assert noted["action"] == "POST"
    assert noted["target"] == "/v1/jobs/a%20b%00/cancel"
    assert (noted["outcome"], noted["key_id"]) == ("forbidden", READER.key_id)
    assert noted["project"] == "sums"


async def test_no_entry_holds_what_was_sent(stage: Stage) -> None:
    await stage.submit(name="a-telling-name")

    noted = str(await entries(stage))

    assert "a-telling-name" not in noted
    assert ROW["instruction"] not in noted


@pytest.mark.parametrize(
    ("query", "actions"),
    [
        ("?action=job.submit", ["job.submit"]),
        ("?key_id=key-0000000000000000", []),
        ("?project=default&action=file.create", ["file.create"]),
        ("?project=other", []),
    ],
)
async def test_the_log_can_be_filtered(stage: Stage, query: str, actions: list[str]) -> None:
    await stage.submit()

    assert [entry["action"] for entry in await entries(stage, query)] == actions


async def test_the_log_can_be_filtered_by_what_was_changed(stage: Stage) -> None:
    job_id = await stage.submit()
    await stage.submit()

    noted = await entries(stage, f"?target={job_id}")

    assert [(entry["action"], entry["target"]) for entry in noted] == [("job.submit", job_id)]


async def test_the_log_is_read_in_pages_newest_first(stage: Stage) -> None:
    for _ in range(3):
        await stage.upload()

    first = await stage.get("/v1/audit?limit=2")
    second = await stage.get(f"/v1/audit?limit=2&after={first['data'][-1]['id']}")

    ids = [entry["id"] for entry in [*first["data"], *second["data"]]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 3
    assert (first["has_more"], second["has_more"]) == (True, False)


@pytest.mark.parametrize("query", ["?target=%00", "?limit=0", "?after=-1", "?after=x"])
async def test_a_filter_that_makes_no_sense_is_refused(stage: Stage, query: str) -> None:
    response = await stage.client.get(f"/v1/audit{query}")

    assert response.status_code == 422
    assert response.json()["code"] == "request-invalid"


def test_actions_in_the_api_page_are_those_that_are_noted() -> None:
    root = Path(__file__).parents[3]
    noted = {
        action
        for path in (root / "service").glob("*.py")
        for action in re.findall(r'self\._caller, "([a-z]+\.[a-z]+)"', path.read_text())
    }
    page = (root / "docs/api.md").read_text().partition("## Audit log")[2].partition("\n## ")[0]
    assert noted <= set(re.findall(r"`([a-z]+\.[a-z]+)`", page))
    assert len(noted) >= 8
