"""One rank of a two-rank training, run as `python -m tests.unit.workers.rank_main FOLDER`.

Reads FOLDER/rank-N.task, a pickled (task, checkpoint to resume from), with N from $RANK, and writes
FOLDER/rank-N.outcome, the pickled (metrics, checkpoints, result or error).
"""

import os
import pickle
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.unit.workers.recording import RecordingReporter
from workers.errors import WorkerError
from workers.train_loop import train


class RankReporter(RecordingReporter):
    """Keeps checkpoints where it is given them, which is on rank 0."""

    def checkpoint(self, step: int, directory: Path | None) -> None:
        if directory is not None:
            super().checkpoint(step, directory)


def main(folder: Path) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    task, resume_from = pickle.loads((folder / f"rank-{rank}.task").read_bytes())
    # A file as the meeting point needs no free port.
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    reporter = RankReporter(folder / f"rank-{rank}", resume_from)
    try:
        outcome: object = train(task, reporter, torch.device("cpu"))
    except WorkerError as error:
        outcome = error
    dist.destroy_process_group()
    record = (reporter.history, reporter.kept, outcome)
    (folder / f"rank-{rank}.outcome").write_bytes(pickle.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
