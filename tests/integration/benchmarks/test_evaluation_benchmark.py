import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/evaluation.py"


def write_rows(folder: Path) -> None:
    sums = [{"instruction": f"{a} + 1 =", "answer": a + 1} for a in range(12)]
    sentences = [
        {
            "instruction": "Please choose the correct answer to fill in the blank: "
            f"Ann {number} met Sue as _ rang.\n\nOption1: Ann Option2: Sue "
            "Answer format: option1/option2",
            "answer": "option1",
        }
        for number in range(6)
    ]
    for path, rows in (
        ("arithmetic/test/addsub.jsonl.gz", sums),
        ("commonsense/test/winogrande.jsonl.gz", sentences),
    ):
        (folder / path).parent.mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / path).write_bytes(gzip.compress(lines.encode()))


@pytest.mark.integration
def test_the_evaluation_benchmark_ends_with_its_figures_at_equal_answers(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path)
    sizes = ["--rows", "9", "--adapter-rows", "2", "--alone-every", "3", "--max-new-tokens", "8"]
    sizes += ["--batch-rows", "4", "--padded-rows", "3", "--rounds", "3"]
    tasks = ["--task", "addsub", "--option-task", "winogrande"]
    places = ["--base-model", tiny_model_dir, "--data", tmp_path, "--json", tmp_path / "all.json"]
    outcome = subprocess.run(
        [sys.executable, SCRIPT, *sizes, *tasks, *places],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert outcome.returncode == 0, outcome.stderr
    name, _, content = outcome.stdout.splitlines()[-1].partition(" ")
    result = json.loads(content)
    assert name == "RESULT"
    assert result.pop("equal_to_one_at_a_time") == 1.0
    assert result.keys() == {
        "rows_per_s_vs_one_at_a_time",
        "rows_per_s_vs_padded_batches",
        "options_per_s_vs_one_at_a_time",
        "adapters_in_one_pass",
    }
    assert min(result.values()) > 0
    figures = json.loads((tmp_path / "all.json").read_text())["dtypes"]["float32"]
    assert figures["equal_to_padded"] == 1.0
    assert figures["largest_difference_nats"] < 1e-3
