import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "docs/examples/train_adapter.py"
SCRIPT = """
import runpy, sys
for name in ("ray", "mlflow", "fastapi", "sqlalchemy", "pydantic_settings", "workers", "service"):
    sys.modules[name] = None  # any import of it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.integration
def test_example_trains_and_reloads_an_adapter_with_the_library_alone(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", SCRIPT, EXAMPLE, tiny_model_dir, tmp_path / "adapter"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert outcome.returncode == 0, outcome.stderr
    printed = outcome.stdout
    losses = [float(value) for value in re.findall(r"loss(?: before:)? (\d+\.\d+)\n", printed)]
    assert losses[-1] < losses[0] / 2
    assert "reloaded adapter answers identically: True" in printed
    assert "three rows, three answers: True" in printed
    assert re.search(r"merged with a relative error of \d+\.\d% of the update", printed)
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()
