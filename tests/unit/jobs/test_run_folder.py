"""The folder of a run after a crash."""

from dataclasses import fields
from pathlib import Path

from jobs import run_folder
from jobs.run_folder import SNAPSHOT_FILE, remove_leftovers, stored_sizes
from workers.checkpoint import STATE_FILE, TrainState


def test_checkpoints_that_nobody_keeps_are_removed_and_all_else_stays(tmp_path: Path) -> None:
    run = tmp_path / "job-1"
    for name in ("checkpoint_2026-01-01", "checkpoint_2026-01-02", "checkpoint_2026-01-03"):
        (run / name / "adapter").mkdir(parents=True)
        (run / name / "adapter" / "weights").write_text(name)
    (run / SNAPSHOT_FILE).touch()
    (tmp_path / "job-2" / "checkpoint_2026-01-01").mkdir(parents=True)
    remove_leftovers(str(tmp_path), "job-1", {"checkpoint_2026-01-02"})
    assert {path.name for path in run.iterdir()} == {SNAPSHOT_FILE, "checkpoint_2026-01-02"}
    assert (tmp_path / "job-2" / "checkpoint_2026-01-01").exists()


def test_a_run_that_stored_nothing_has_no_leftovers(tmp_path: Path) -> None:
    remove_leftovers(str(tmp_path), "never-begun", set())


def test_a_checkpoint_says_its_step_where_it_is_looked_for() -> None:
    assert run_folder._STATE_FILE == STATE_FILE
    assert "step" in {field.name for field in fields(TrainState)}


def test_the_sizes_of_stored_checkpoints_are_told_by_step(tmp_path: Path) -> None:
    for step in (50, 100):
        folder = tmp_path / "run" / f"checkpoint_2026-01-01_00-00-{step:03}"
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "weights").write_bytes(b"0" * step)
        (folder / STATE_FILE).write_text(f'{{"step": {step}}}')
    (tmp_path / "run" / "checkpoint_2026-01-01_00-00-999").mkdir()

    assert stored_sizes(str(tmp_path), "run") == {50: 50 + 12, 100: 100 + 13}
    assert stored_sizes(str(tmp_path), "another") == {}
    assert stored_sizes(str(tmp_path / "nowhere"), "run") is None
