"""The folder of a run after a crash."""

from pathlib import Path

from jobs.run_folder import SNAPSHOT_FILE, remove_leftovers


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
