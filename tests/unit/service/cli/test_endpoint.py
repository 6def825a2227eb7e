"""Where the command line finds a service and its token."""

import json
from pathlib import Path

import pytest

from service.cli.endpoint import Endpoint, find_endpoint
from service.cli.errors import CliError
from tests.unit.service.cli.conftest import TOKEN, URL


def test_the_running_stack_is_found_under_its_home(home: Path) -> None:
    assert find_endpoint(None) == Endpoint(URL, TOKEN, str(home / "token"))


def test_without_a_stack_the_user_learns_how_to_start_one(home: Path) -> None:
    (home / "endpoint.json").unlink()
    with pytest.raises(CliError, match="start one with `hyplora up`"):
        find_endpoint(None)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null"])
def test_a_damaged_endpoint_is_told(content: str, home: Path) -> None:
    (home / "endpoint.json").write_text(content)
    with pytest.raises(CliError, match=r"endpoint\.json is damaged"):
        find_endpoint(None)


def test_a_given_address_wins_over_the_stack(home: Path) -> None:
    assert find_endpoint("http://localhost:9/").url == "http://localhost:9"


def test_a_given_token_wins_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPLORA_TOKEN", " other ")
    assert find_endpoint(None) == Endpoint(URL, "other", "HYPLORA_TOKEN")


def test_the_token_of_this_machine_is_never_sent_to_another(home: Path) -> None:
    with pytest.raises(CliError, match=r"a token of https://example\.org"):
        find_endpoint("https://example.org")


def test_a_stack_elsewhere_needs_a_token_of_its_own(home: Path) -> None:
    (home / "endpoint.json").write_text(json.dumps({"url": "http://10.0.0.1:8800"}))
    with pytest.raises(CliError, match="set HYPLORA_TOKEN"):
        find_endpoint(None)


@pytest.mark.parametrize(
    "url", ["", " ", "127.0.0.1:8800", "ftp://127.0.0.1", "http://", "http://[::1"]
)
def test_what_is_no_address_is_refused(url: str, home: Path) -> None:
    (home / "endpoint.json").write_text(json.dumps({"url": url}))
    with pytest.raises(CliError, match="is no address"):
        find_endpoint(None)


def test_a_missing_token_is_told(home: Path) -> None:
    (home / "token").unlink()
    with pytest.raises(CliError, match="no token for http"):
        find_endpoint(None)


@pytest.mark.parametrize("content", [b"two words", "t\u00f6ken".encode(), b"\xff"])
def test_a_token_that_no_header_can_carry_is_refused(content: bytes, home: Path) -> None:
    (home / "token").write_bytes(content)
    with pytest.raises(CliError, match="token"):
        find_endpoint(None)
