"""Every snippet of the README runs as it stands, but for the base model's name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import LocalStack

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
HUB_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def shell(
    stack: LocalStack, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> "Shell":
    return Shell(stack, tiny_model_dir, tmp_path_factory.mktemp("reader"))


class Shell:
    """A reader's terminal: keeps its folder, and gets the stack as `hyplora up` leaves it."""

    def __init__(self, stack: LocalStack, base_model: Path, folder: Path) -> None:
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HYPLORA_HOME": str(stack.home),
            "HF_HUB_OFFLINE": "1",
        }
        self._base_model = base_model
        self._folder = folder

    def run(self, script: str) -> str:
        """Run a snippet in a shell that has read `hyplora env`; returns what it printed."""
        whole = 'set -euo pipefail\neval "$(hyplora env)"\n' + script
        done = subprocess.run(
            ["bash", "-c", whole.replace(HUB_MODEL, str(self._base_model))],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def test_the_shell_snippets_take_a_reader_from_rows_to_an_answer(shell: Shell) -> None:
    printed = "".join(shell.run(snippet) for snippet in snippets("bash"))
    assert "succeeded" in printed
    assert '"status":"queued"' in printed.replace(" ", "")


def test_the_python_snippets_load_what_the_shell_snippets_registered(shell: Shell) -> None:
    for snippet in snippets("python"):
        shell.run(f"python - <<'PYTHON'\n{snippet}PYTHON\n")


def test_the_commands_of_the_readme_exist() -> None:
    for target in ("demo", "test", "install"):
        assert f"make {target}" in README
        subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, check=True)
    for command in ("up", "submit", "jobs", "show", "logs", "cancel", "pull", "generate", "env"):
        subprocess.run([sys.executable, "-m", "service.cli", command, "--help"], check=True)


def test_the_links_of_the_readme_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (REPOSITORY / target).exists(), target
