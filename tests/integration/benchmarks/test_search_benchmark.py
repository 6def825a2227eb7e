import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/search.py"


@pytest.mark.slow
@pytest.mark.integration
def test_the_search_benchmark_trains_the_same_trials_warm_and_nested(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    sizes = ["--trials", "3", "--steps", "2", "--rounds", "1", "--rows", "16", "--concurrent", "2"]
    places = ["--base-model", tiny_model_dir, "--json", tmp_path / "all.json"]
    outcome = subprocess.run(
        [sys.executable, SCRIPT, *sizes, *places],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert outcome.returncode == 0, outcome.stderr
    name, _, content = outcome.stdout.splitlines()[-1].partition(" ")
    assert name == "RESULT"
    assert json.loads(content).keys() == {"trials_per_hour_vs_nested", "warm_trial_start_s"}
    searches = json.loads((tmp_path / "all.json").read_text())["searches"]
    warm, nested = (searches[kind][0]["objectives"] for kind in ("warm", "nested"))
    assert warm == pytest.approx(nested, rel=1e-3)
    assert sorted(warm) == ["trial-0001", "trial-0002", "trial-0003"]
