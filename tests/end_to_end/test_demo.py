"""The demo as a new user runs it: a real model, real rows, a real improvement, nothing left."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LAST_LINE = re.compile(
    r"demo: ok job=job-[0-9a-f]{16} model_version=1 accuracy_before=(\S+) "
    r"accuracy_few_shot=(\S+) accuracy_after=(\S+) seconds=\d+"
)


LAST_LINE_OF_ALL = re.compile(
    r"demo-full: ok jobs=(?:job-[0-9a-f]{16},?){4} accuracy_before=(\S+) accuracy_after=(\S+) "
    r"seconds=\d+"
)


@contextmanager
def running_demo(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "deploy.demo", "--home", str(home), *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        try:
            yield demo
        finally:  # of a test that was interrupted
            if demo.poll() is None:
                demo.send_signal(signal.SIGINT)


@pytest.mark.timeout(1800)
def test_a_shortened_demo_improves_a_real_model_and_says_so_in_its_last_line(
    tmp_path: Path,
) -> None:
    with running_demo(tmp_path, "--steps", "42", "--held-out", "40") as demo:
        printed, _ = demo.communicate()
    assert demo.returncode == 0, printed
    last_line = LAST_LINE.fullmatch(printed.splitlines()[-1])
    assert last_line is not None, printed
    before, _, after = map(float, last_line.groups())
    assert after > before


@pytest.mark.timeout(1800)
def test_a_shortened_full_demo_evaluates_compares_and_analyzes(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--full", "--steps", "42", "--held-out", "40") as demo:
        printed, _ = demo.communicate()
    assert demo.returncode == 0, printed
    last_line = LAST_LINE_OF_ALL.fullmatch(printed.splitlines()[-1])
    assert last_line is not None, printed
    before, after = map(float, last_line.groups())
    assert after > before


@pytest.mark.timeout(1800)
def test_ctrl_c_in_the_middle_of_the_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--held-out", "40") as demo:
        assert demo.stdout is not None
        seen = ""
        for line in demo.stdout:
            seen += line
            if "step " in line:
                break
        processes = psutil.Process(demo.pid).children(recursive=True)
        assert any("jobs.finetune" in " ".join(p.cmdline()) for p in processes), seen
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, seen + rest
    assert "nothing is left running" in rest
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive
