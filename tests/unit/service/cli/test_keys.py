"""`hyplora keys` on a database of its own, and whether the keys open the service."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.errors import DatabaseUnavailableError
from service.key_tokens import parse_token
from service.keys import Keys
from tests.unit.service.cli.conftest import Outcome

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def database(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    path = home / "elsewhere.db"
    monkeypatch.setenv("HYPLORA_DATABASE_URL", f"sqlite+aiosqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def test_a_key_is_printed_alone_once_and_stored_as_a_hash(
    hyplora: Run, database: sqlite3.Connection
) -> None:
    made = hyplora("keys", "create", "ci", "--project", "sums", "--expires", "90d")

    token = parse_token(made.stdout.strip())
    assert made.exit_code == 0
    assert token is not None
    assert f"hyplora keys revoke {token.key_id}" in made.stderr
    (row,) = database.execute("SELECT * FROM api_keys").fetchall()
    assert token.secret not in str(row)
    (noted,) = database.execute("SELECT key_id, action, target, outcome FROM audit").fetchall()
    assert noted == (None, "key.create", token.key_id, "done")


def test_keys_are_listed_with_project_scopes_and_state(hyplora: Run) -> None:
    assert hyplora("keys", "list").stderr == "no keys\n"
    first = parse_token(hyplora("keys", "create", "ci", "--expires", "12h").stdout.strip())
    second = parse_token(hyplora("keys", "create", "ops", "--scope", "admin").stdout.strip())
    assert first is not None
    assert second is not None

    revoked = hyplora("keys", "revoke", first.key_id)
    listed = hyplora("keys", "list").stdout.splitlines()
    as_json = json.loads(hyplora("keys", "list", "--json").stdout)

    assert revoked.stdout == f"{first.key_id} revoked\n"
    assert re.match(rf" *{second.key_id} +ops +default +admin +valid +20.* never", listed[1])
    assert re.match(rf" *{first.key_id} +ci +default +submit +revoked", listed[2])
    assert [key["name"] for key in as_json["data"]] == ["ops", "ci"]
    assert "hash" not in as_json["data"][0]


def test_a_key_that_is_not_there_cannot_be_revoked(hyplora: Run) -> None:
    outcome = hyplora("keys", "revoke", "key-1")

    assert outcome.exit_code == 1
    assert outcome.stderr == "error: there is no key 'key-1': see `hyplora keys list`\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--expires", "soon"], "is no time"),
        (["--expires", "0d"], "still to come"),
        (["--project", "Has Spaces"], "project"),
        (["--scope", "root"], "root"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    hyplora: Run, options: list[str], reason: str
) -> None:
    outcome = hyplora("keys", "create", "ci", *options)

    assert outcome.exit_code == 2
    assert reason in outcome.stderr


def test_a_database_that_does_not_answer_is_one_sentence(
    hyplora: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("HYPLORA_DATABASE_URL", f"sqlite+aiosqlite:///{home}/file/keys.db")

    outcome = hyplora("keys", "list")

    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: the database does not answer, see HYPLORA_DATABASE")


def test_a_database_that_goes_away_meanwhile_is_one_sentence(
    hyplora: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise DatabaseUnavailableError("the database does not answer; try again in a moment")

    monkeypatch.setattr(Keys, "page", fail)

    outcome = hyplora("keys", "list")

    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: the database does not answer, see HYPLORA_DATABASE")


def test_a_setting_that_cannot_work_is_one_sentence(
    hyplora: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPLORA_DATABASE_URL", "mysql://me:secret@host/db")

    outcome = hyplora("keys", "list")

    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: HYPLORA_DATABASE_URL: ")
    assert "secret" not in outcome.stderr
