from datetime import timedelta
from typing import Any

import pytest

from service.tables import utc_now
from tests.unit.service.stage import KEY, Stage, field_errors


async def create(stage: Stage, **body: Any) -> dict[str, Any]:
    response = await stage.client.post("/v1/keys", json={"name": "ci", **body})
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_a_key_that_is_made_opens_the_api_and_is_shown_this_once(stage: Stage) -> None:
    response = await stage.client.post("/v1/keys", json={"name": "ci", "project": "sums"})
    made = response.json()
    text = made.pop("key")

    opened = await stage.client.get("/v1/jobs", headers={"Authorization": f"Bearer {text}"})

    assert response.headers["Location"] == f"/v1/keys/{made['id']}"
    assert response.headers["Cache-Control"] == "no-store"
    assert (made["project"], made["scopes"], made["expires_at"]) == ("sums", ["submit"], None)
    assert opened.status_code == 200
    shown = [await stage.get(f"/v1/keys/{made['id']}"), await stage.get("/v1/keys")]
    assert text.rpartition("_")[2] not in str(shown)
    assert "hash" not in shown[0]


async def test_keys_are_listed_in_pages_newest_first(stage: Stage) -> None:
    made = [(await create(stage, name=f"key {number}"))["id"] for number in range(3)]

    first = await stage.get("/v1/keys?limit=2")
    second = await stage.get(f"/v1/keys?limit=2&after={first['data'][-1]['id']}")

    assert [key["id"] for key in first["data"]] == [made[2], made[1]]
    assert [key["id"] for key in second["data"]] == [made[0], KEY.key_id]
    assert (first["has_more"], second["has_more"]) == (True, False)


async def test_a_key_that_is_revoked_stays_revoked(stage: Stage) -> None:
    made = await create(stage)

    first = await stage.client.post(f"/v1/keys/{made['id']}/revoke")
    again = await stage.client.post(f"/v1/keys/{made['id']}/revoke")

    assert first.status_code == 200
    assert first.json()["revoked_at"] is not None
    assert again.json() == first.json()
    opened = await stage.client.get("/v1/jobs", headers={"Authorization": f"Bearer {made['key']}"})
    assert opened.status_code == 401


@pytest.mark.parametrize("key_id", ["key-0000000000000000", "key-0", "%00", "KEY", "a%2Fb"])
@pytest.mark.parametrize("verb", ["", "/revoke"])
async def test_a_key_that_is_not_there_cannot_be_read_or_revoked(
    stage: Stage, key_id: str, verb: str
) -> None:
    method = "POST" if verb else "GET"

    response = await stage.client.request(method, f"/v1/keys/{key_id}{verb}")

    assert response.status_code == 404
    assert response.json()["code"] in {"key-not-found", "not-found"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "two\nlines"),
        ("name", "n" * 65),
        ("project", "Has Spaces"),
        ("project", "../etc"),
        ("project", "p" * 65),
        ("scopes", []),
        ("scopes.0", ["root"]),
        ("expires_at", "2026-01-01T00:00:00+00:00"),
        ("expires_at", "2099-01-01T00:00:00"),
        ("hash", "scrypt$2$8$1$$"),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(
    stage: Stage, field: str, value: object
) -> None:
    body = {"name": "ci", field.partition(".")[0]: value}

    response = await stage.client.post("/v1/keys", json=body)

    assert response.status_code == 422
    assert field in field_errors(response.json())
    assert len((await stage.get("/v1/keys"))["data"]) == 1


async def test_a_key_can_be_made_to_expire(stage: Stage) -> None:
    moment = utc_now() + timedelta(days=90)

    made = await create(stage, scopes=["admin", "read"], expires_at=moment.isoformat())

    assert made["scopes"] == ["read", "admin"]
    assert made["expires_at"] == moment.isoformat().replace("+00:00", "Z")
