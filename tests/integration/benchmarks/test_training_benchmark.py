import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_model import write_addition_rows

SCRIPT = Path(__file__).parents[2] / "benchmarks/training.py"


@pytest.mark.integration
def test_the_training_benchmark_ends_with_its_figures_and_null_for_what_was_left_out(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "arithmetic/train/mawps_clean.jsonl.gz"
    file.parent.mkdir(parents=True)
    rows = write_addition_rows(tmp_path / "rows.jsonl", num_rows=8)
    file.write_bytes(gzip.compress(rows.read_bytes()))
    sizes = ["--rows", "8", "--trial-rows", "4", "--batch-size", "4", "--micro-batch", "2"]
    places = ["--base-model", tiny_model_dir, "--data", tmp_path, "--json", tmp_path / "all.json"]
    methods = ["--methods", "ours,padded", "--rounds", "1"]
    outcome = subprocess.run(
        [sys.executable, SCRIPT, *methods, *sizes, *places],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert outcome.returncode == 0, outcome.stderr
    name, _, content = outcome.stdout.splitlines()[-1].partition(" ")
    result = json.loads(content)
    assert name == "RESULT"
    assert result.pop("tokens_per_s_vs_padded") > 0
    assert result == {
        "tokens_per_s_vs_trl": None,
        "hyplora_tokens_per_s_vs_trl": None,
        "reporting_overhead": None,
        "reporting_and_checkpoints": None,
        "reporting_on_all_cores": None,
    }
    figures = json.loads((tmp_path / "all.json").read_text())
    trainings = figures["dtypes"]["float32"]["trainings"]
    ours, padded = (trainings[name][0]["losses"] for name in ("ours, LoRA", "padded"))
    assert ours == pytest.approx(padded, abs=1e-3), "the same rows, weights and learning rates"
