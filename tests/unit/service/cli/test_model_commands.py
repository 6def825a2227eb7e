"""Registered models at the prompt: listed, shown, promoted, deleted."""

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.unit.service.cli.conftest import Outcome, ScriptedService, problem

Run = Callable[..., Outcome]


def model(name: str = "sums", **fields: Any) -> dict[str, Any]:
    path = f"/v1/models/{name}"
    links = {"self": path, "versions": f"{path}/versions", "mlflow_model": "http://mlflow/sums"}
    return {
        "name": name,
        "project": "default",
        "aliases": {"champion": 3},
        "newest_version": 4,
        "created_at": "2026-01-02T03:04:05Z",
        "links": links,
        **fields,
    }


def version(number: int = 3, **fields: Any) -> dict[str, Any]:
    path = f"/v1/models/sums/versions/{number}"
    evaluation = {"task": "exam", "metric": "accuracy", "value": 0.8, "low": 0.7, "high": 0.9}
    return {
        "name": "sums",
        "version": number,
        "aliases": ["champion"],
        "uri": f"models:/sums/{number}",
        "base_model": "org/base",
        "method": "hyplora",
        "rank": 8,
        "curvature": 2.5,
        "job_id": "job-0123456789abcdef",
        "scores": {"train_loss": 0.25},
        "evaluations": [evaluation | {"num_rows": 20, "job_id": "job-00000000000000ff"}],
        "created_at": "2026-01-02T03:04:05Z",
        "links": {
            "self": path,
            "model": "/v1/models/sums",
            "lineage": f"{path}/lineage",
            "download": f"{path}/download",
            "mlflow_version": "http://mlflow/sums/3",
        },
        **fields,
    }


def test_models_are_listed(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", "/v1/models", {"data": [model()], "has_more": True})

    outcome = hyplora("models")

    assert outcome.exit_code == 0, outcome.stderr
    assert "sums" in outcome.stdout
    assert "champion=3" in outcome.stdout
    assert "raise --limit" in outcome.stderr


def test_no_models_are_told_as_such(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", "/v1/models", {"data": [], "has_more": False})

    outcome = hyplora("models")

    assert (outcome.stdout, outcome.stderr) == ("", "no models\n")


def test_models_are_listed_as_json(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", "/v1/models", {"data": [model()], "has_more": False})

    outcome = hyplora("models", "--json")

    assert json.loads(outcome.stdout)["data"][0]["aliases"] == {"champion": 3}


def test_a_model_is_shown_with_its_versions(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", "/v1/models/sums", model())
    service.on("GET", "/v1/models/sums/versions", {"data": [version()], "has_more": False})

    outcome = hyplora("models", "show", "sums")

    for text in ("sums", "champion", "hyplora", "2.5", "job-0123456789abcdef", "http://mlflow"):
        assert text in outcome.stdout


@pytest.mark.parametrize(("target", "selector"), [("sums/3", "3"), ("sums@champion", "@champion")])
def test_a_version_is_shown_with_all_that_is_known(
    target: str, selector: str, hyplora: Run, service: ScriptedService
) -> None:
    service.on("GET", f"/v1/models/sums/versions/{selector}", version())

    outcome = hyplora("models", "show", target)

    for text in ("sums/3", "org/base", "train_loss", "0.8000 [0.7000, 0.9000], 20 rows"):
        assert text in outcome.stdout


def test_a_version_is_promoted(hyplora: Run, service: ScriptedService) -> None:
    path = "/v1/models/sums/aliases/champion"
    service.on("PUT", path, {"name": "sums", "alias": "champion", "version": 3})

    outcome = hyplora("models", "promote", "sums/3", "champion", "--only-from", "2")

    assert outcome.stdout == "sums@champion is version 3\n"
    assert service.bodies("PUT", path) == [{"version": 3}]
    assert service.requests[-1].headers["If-Match"] == '"2"'


def test_a_promotion_that_is_refused_says_why(hyplora: Run, service: ScriptedService) -> None:
    path = "/v1/models/sums/aliases/champion"
    service.on("PUT", path, problem(412, "precondition-failed", "it points at version 4"))

    outcome = hyplora("models", "promote", "sums/3", "champion")

    assert (outcome.exit_code, outcome.stderr) == (1, "error: it points at version 4\n")


@pytest.mark.parametrize("command", [("promote", "sums@best", "champion"), ("delete", "sums@best")])
def test_what_could_be_another_version_in_a_moment_is_not_changed(
    command: tuple[str, ...], hyplora: Run, service: ScriptedService
) -> None:
    outcome = hyplora("models", *command)

    assert outcome.exit_code == 1
    assert "give NAME/VERSION" in outcome.stderr
    assert not service.requests


def test_an_alias_is_removed(hyplora: Run, service: ScriptedService) -> None:
    service.on("DELETE", "/v1/models/sums/aliases/champion", httpx.Response(204))

    assert hyplora("models", "demote", "sums@champion").stdout == "sums@champion removed\n"
    assert "give NAME@ALIAS" in hyplora("models", "demote", "sums/3").stderr


@pytest.mark.parametrize(
    ("target", "path"), [("sums/3", "/v1/models/sums/versions/3"), ("sums", "/v1/models/sums")]
)
def test_deleting_asks_first(
    target: str,
    path: str,
    hyplora: Run,
    service: ScriptedService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service.on("DELETE", path, httpx.Response(204))

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    refused = hyplora("models", "delete", target)
    asked_before = list(service.requests)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    done = hyplora("models", "delete", target)
    unasked = hyplora("models", "delete", target, "--yes")

    assert refused.exit_code == 1
    assert asked_before == []
    assert [each.stdout.strip() for each in (done, unasked)] == [f"{target} deleted"] * 2
    assert [request.url.path for request in service.requests] == [path, path]
