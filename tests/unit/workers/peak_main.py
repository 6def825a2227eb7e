"""Trains one step of a small Llama in a process of its own and prints what memory that took.

As JSON: resident bytes before the model was there, and at the peak. The peak is Linux's `VmHWM`:
`ru_maxrss` begins at the size of the process that started this one.
"""

import json
import re
import sys
from pathlib import Path

import torch

from tests.unit.workers.recording import run, task_for
from workers.specs import HypLoraSpec, LoraSpec

METHODS = {"lora": LoraSpec(), "hyplora": HypLoraSpec()}


def main() -> None:
    base, rows, method, dtype, folder = sys.argv[1:]
    torch.set_num_threads(1)
    before = resident("VmRSS")
    task = task_for(
        Path(base), Path(rows), adapter=METHODS[method], dtype=dtype, num_epochs=1, max_steps=1,
        batch_size=4, micro_batch_tokens=4096,
    )  # fmt: skip
    run(task, Path(folder))
    sys.stdout.write(json.dumps({"before": before, "peak": resident("VmHWM")}) + "\n")


def resident(field: str) -> int:
    """Bytes of this process that are, or were at the most, in memory."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024


if __name__ == "__main__":
    main()
