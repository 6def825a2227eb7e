"""Child processes end with their parent, and say why they ended."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from deploy.processes import ChildProcess, ProcessError, free_ports, is_port_free


def test_free_ports_are_distinct_and_free() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(is_port_free(port) for port in ports)


def test_a_child_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    child = ChildProcess("worker", command, os.environ, tmp_path / "worker.log")
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        os.sched_yield()
    with pytest.raises(ProcessError, match=r"worker ended with exit code 3(.|\n)*the reason"):
        child.require_alive()
    child.stop(grace_s=5.0)


def test_stopping_a_child_that_ignores_the_signal_kills_it_and_its_own_children(
    tmp_path: Path,
) -> None:
    code = textwrap.dedent(
        """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid, flush=True)
        time.sleep(600)
        """
    )
    log = tmp_path / "stubborn.log"
    child = ChildProcess("stubborn", [sys.executable, "-c", code], os.environ, log)
    grandchild = psutil.Process(_number_in(log))
    child.stop(grace_s=0.1)
    assert not psutil.pid_exists(child.pid)
    grandchild.wait(30)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = textwrap.dedent(
        f"""
        import os, sys, time
        from pathlib import Path
        from deploy.processes import ChildProcess
        sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
        ChildProcess("child", [sys.executable, "-c", sleep], os.environ, Path({str(log)!r}))
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        child = psutil.Process(_number_in(log))
        parent.kill()
        child.wait(30)


def _number_in(log: Path) -> int:
    """Wait until a process has printed a number into its log."""
    while not (log.exists() and log.read_text().endswith("\n")):
        os.sched_yield()
    return int(log.read_text())
