import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/control_plane.py"


@pytest.mark.slow
@pytest.mark.integration
def test_the_control_plane_loses_and_doubles_nothing_while_a_job_trains(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    sizes = ["--burst", "40", "--jobs", "500", "--repeats", "3", "--followers", "20"]
    places = ["--base-model", tiny_model_dir, "--json", tmp_path / "all.json"]
    outcome = subprocess.run(
        [sys.executable, SCRIPT, *sizes, "--events", "5", "--rounds", "1", *places],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    name, _, content = outcome.stdout.splitlines()[-1].partition(" ")
    result = json.loads(content)
    assert name == "RESULT"
    assert (result.pop("burst_lost"), result.pop("burst_doubled")) == (0, 0)
    assert result.keys() == {
        "post_p50_ms",
        "post_p99_ms",
        "list_p99_ms",
        "first_step_vs_ray_job",
    }
    assert min(result.values()) > 0
    figures = json.loads((tmp_path / "all.json").read_text())
    assert [burst["refused"] for burst in figures["bursts"].values()] == [0, 0, 0, 0]
    followers = figures["followers"]
    assert (followers["complete_and_in_order"], followers["closed"]) == (20, 20)
    found = {name: each["jobs"] for name, each in figures["lists"]["queries"].items()}
    assert found["first page"] == 50
    assert found["tag that few have"] == 5
    assert found["metadata of one"] == 1
