import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "peft", "ray.train")


def loaded_by(module: str) -> set[str]:
    """Those of the heavy packages that a fresh process has after importing one module."""
    script = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(process.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "service.app",
        "service.client",
        "jobs.compare_plan",
        "jobs.specs",
        "jobs.tickets",
        "workers.specs",
        "workers.rows",
        "workers.tasks.registry",
    ],
)
def test_the_control_plane_starts_without_the_training_stack(module: str) -> None:
    assert loaded_by(module) == set()


def test_the_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    process = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert process.returncode == 0, process.stdout
