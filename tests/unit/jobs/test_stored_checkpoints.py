"""A training's folder of checkpoints, as one process writes and finds it."""

import hashlib
import json
from pathlib import Path

import pytest

from jobs.stored_checkpoints import (
    StoredCheckpoints,
    keep_adapter_alone,
    lend_stored,
    remove_run,
)
from workers.checkpoint import ADAPTER_FOLDER, FORMAT_VERSION, OPTIMIZER_FILE, STATE_FILE

RUN = "job-1-lora-lr0.001-seed0"


def write_checkpoint(folder: Path, step: int) -> Path:
    """What a training hands over, with other bytes than weights have."""
    (folder / ADAPTER_FOLDER).mkdir(parents=True)
    files = {f"{ADAPTER_FOLDER}/weights": f"weights {step}", OPTIMIZER_FILE: f"moments {step}"}
    for name, text in files.items():
        (folder / name).write_text(text)
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    state = {"format_version": FORMAT_VERSION, "task_digest": "t", "step": step, "sha256": digests}
    (folder / STATE_FILE).write_text(json.dumps(state))
    return folder


@pytest.fixture
def stored(tmp_path: Path) -> StoredCheckpoints:
    return StoredCheckpoints(str(tmp_path), RUN, num_kept=2)


def steps_of(stored: StoredCheckpoints) -> list[int]:
    """Steps of the checkpoints that can be resumed from, in their order."""
    steps = []
    for lent in stored.newest_first():
        with lent as folder:
            steps.append(json.loads((folder / STATE_FILE).read_text())["step"])
    return steps


def test_the_newest_are_kept_and_found_first(stored: StoredCheckpoints, tmp_path: Path) -> None:
    assert steps_of(stored) == []
    for step in (1, 2, 3):
        given = write_checkpoint(tmp_path / "given", step)
        stored.add(given)
        assert not given.exists()
    assert steps_of(stored) == [3, 2]


def test_one_that_was_cut_off_is_not_resumed_from(
    stored: StoredCheckpoints, tmp_path: Path
) -> None:
    for step in (1, 2):
        stored.add(write_checkpoint(tmp_path / "given", step))
    (tmp_path / RUN / stored.names()[-1] / OPTIMIZER_FILE).write_text("mom")
    assert steps_of(stored) == [1]


def test_of_a_training_that_has_ended_the_adapter_stays(
    stored: StoredCheckpoints, tmp_path: Path
) -> None:
    for step in (1, 2):
        stored.add(write_checkpoint(tmp_path / "given", step))
    last = stored.names()[-1]
    for _ in range(2):  # as a driver does that died before it noted this
        keep_adapter_alone(str(tmp_path), RUN, last)
    assert stored.names() == [last]
    with lend_stored(str(tmp_path), f"{RUN}/{last}") as folder:
        assert folder is not None
        assert (folder / ADAPTER_FOLDER / "weights").read_text() == "weights 2"
        assert not (folder / OPTIMIZER_FILE).exists()


def test_what_is_removed_is_gone_however_often(stored: StoredCheckpoints, tmp_path: Path) -> None:
    stored.add(write_checkpoint(tmp_path / "given", 1))
    last = stored.names()[-1]
    for _ in range(2):
        remove_run(str(tmp_path), RUN)
    with lend_stored(str(tmp_path), f"{RUN}/{last}") as folder:
        assert folder is None
