"""A process that trains by one method of tests/benchmarks/training.py when asked to."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from training_method import MethodConfig, Training


class Method:
    """A process that trains when asked to."""

    def __init__(self, name: str, config: MethodConfig) -> None:
        self.name = name
        self.config = config
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [
                sys.executable,
                Path(__file__).with_name("training_method.py"),
                json.dumps(asdict(config)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(config.threads)},
        )

    def train(self, rows: Path) -> Training:
        """Train from the start on these rows.

        Raises:
            RuntimeError: If the process ends instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{rows}\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            status = self._process.wait()
            self._log.seek(0)
            reason = "\n".join(self._log.read().strip().splitlines()[-1:])
            raise RuntimeError(f"{self.name} ended with status {status}: {reason}")
        return Training(**json.loads(answer))

    def close(self) -> None:
        """End the process."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
        self._log.close()
