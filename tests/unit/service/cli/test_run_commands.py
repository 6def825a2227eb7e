"""`hyplora metrics` and `hyplora artifacts`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli.sparkline import sparkline
from tests.unit.service.cli.conftest import JOB_ID, Outcome, ScriptedService, problem

Run = Callable[..., Outcome]
METRICS_PATH = f"/v1/jobs/{JOB_ID}/metrics"
FILES_PATH = f"/v1/jobs/{JOB_ID}/artifacts"


def series(key: str, values: list[float | None], **fields: Any) -> dict[str, Any]:
    not_finite = [{"step": n, "value": "nan"} for n, value in enumerate(values) if value is None]
    return {
        "key": key,
        "num_points": len(values),
        "num_not_finite": len(not_finite),
        "is_sampled": False,
        "steps": list(range(len(values))),
        "values": values,
        "times_ms": [0] * len(values),
        "not_finite": not_finite,
        **fields,
    }


def page(*data: dict[str, Any], has_more: bool = False) -> dict[str, Any]:
    return {"data": list(data), "has_more": has_more, "names": [each["key"] for each in data]}


def test_metrics_are_shown_with_their_course_and_extremes(
    hyplora: Run, service: ScriptedService
) -> None:
    falling = series("train/loss", [4.0, 3.0, 2.0, 1.5])
    service.on("GET", METRICS_PATH, page(falling))

    outcome = hyplora("metrics", JOB_ID)

    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines()[1].split() == ["train/loss", "█▅▂▁", "4", "1.5", "4", "1.5"]
    assert service.requests[0].url.params["max_points"] == "200"


def test_a_loss_that_diverged_is_seen(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", METRICS_PATH, page(series("train/loss", [2.0, 1.0, None])))

    row = hyplora("metrics", JOB_ID).stdout.splitlines()[1]

    assert row.split() == ["train/loss", "█▁×", "3", "1", "2", "nan", "1"]


def test_a_sampled_series_is_told(hyplora: Run, service: ScriptedService) -> None:
    long = series("train/loss", [2.0, 1.0], num_points=2500, is_sampled=True)
    service.on("GET", METRICS_PATH, page(long))

    outcome = hyplora("metrics", JOB_ID)

    assert "~2,500" in outcome.stdout
    assert "MLflow has sampled" in outcome.stderr


def test_metrics_are_chosen_and_handed_to_programs(hyplora: Run, service: ScriptedService) -> None:
    answer = page(series("eval/loss", [1.0]))
    service.on("GET", METRICS_PATH, answer)

    outcome = hyplora(
        *("metrics", JOB_ID, "--key", "eval/loss", "--key", "train/loss"),
        *("--trial", "trial-0001", "--json"),
    )

    assert json.loads(outcome.stdout) == answer
    params = service.requests[0].url.params
    assert params.get_list("key") == ["eval/loss", "train/loss"]
    assert (params["trial"], params["max_points"]) == ("trial-0001", "500")
    assert set(params) == {"key", "trial", "max_points", "limit"}


def test_a_job_without_metrics_or_files_says_so(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", METRICS_PATH, page())
    service.on("GET", FILES_PATH, {"data": [], "has_more": False})

    assert hyplora("metrics", JOB_ID) == Outcome(0, "", "no metrics yet\n")
    assert hyplora("artifacts", JOB_ID) == Outcome(0, "", "no files yet\n")


def test_files_are_listed(hyplora: Run, service: ScriptedService) -> None:
    file = {"path": "logs/attempt-1.log", "size_bytes": 12345, "media_type": "text/plain"}
    service.on("GET", FILES_PATH, {"data": [file], "has_more": False})

    rows = hyplora("artifacts", JOB_ID).stdout.splitlines()

    assert rows[1].split() == ["logs/attempt-1.log", "12,345", "text/plain"]
    assert json.loads(hyplora("artifacts", JOB_ID, "--json").stdout)["data"] == [file]


def test_a_file_is_downloaded(hyplora: Run, service: ScriptedService, tmp_path: Path) -> None:
    service.on("GET", f"{FILES_PATH}/plots/a b.png", httpx.Response(200, content=b"PNG"))

    folder = tmp_path / "mine"
    folder.mkdir()

    into = hyplora("artifacts", JOB_ID, "plots/a b.png", "-o", folder)
    named = hyplora("artifacts", JOB_ID, "plots/a b.png", "-o", folder / "mine.png")
    again = hyplora("artifacts", JOB_ID, "plots/a b.png", "-o", folder)

    assert into.stdout == f"{folder / 'a b.png'}\n"
    assert named.exit_code == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a b.png": b"PNG",
        "mine.png": b"PNG",
    }
    assert again.exit_code == 1
    assert "is there already" in again.stderr


def test_a_file_that_is_refused_leaves_nothing_behind(
    hyplora: Run, service: ScriptedService, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    refusal = problem(404, "artifact-not-found", "there is no such file")
    service.on("GET", f"{FILES_PATH}/none", refusal)

    outcome = hyplora("artifacts", JOB_ID, "none", "-o", folder)

    assert outcome.exit_code == 1
    assert "there is no such file" in outcome.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([1.0, 1.0], "▁▁"),
        ([0.0, 1.0], "▁█"),
        ([None], "×"),
        ([0.0, None, 1.0], "▁×█"),
        ([-1.7e308, 1.7e308], "▁█"),
        ([0.0] * 40 + [1.0] * 40, "▁" * 20 + "█" * 20),
    ],
)
def test_a_series_is_drawn_in_one_line(values: list[float | None], drawn: str) -> None:
    assert sparkline(values) == drawn
