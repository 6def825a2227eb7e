"""Every ready-made job in docs/examples is one that the service takes, with rows that it reads."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from jobs.compare_specs import CompareSpec
from jobs.evaluate_specs import EvaluateSpec
from jobs.evaluation.questions import read_tasks
from jobs.specs import JobSpec, file_ids
from jobs.tickets import FileRef
from service.cli.spec_file import local_data, read_spec_file, with_file_ids
from workers.rows import iter_rows
from workers.tasks.evaluation_rows import parse_either_row

FOLDER = Path(__file__).parents[3] / "docs/examples"
SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
NAMES = sorted(path.name for path in FOLDER.glob("*.yaml"))


def uploaded(name: str) -> tuple[JobSpec, dict[str, Path]]:
    """A job as the service gets it, and its rows by file id."""
    spec = read_spec_file(FOLDER / name)
    paths = local_data(spec)
    ids = {path: f"file-{number:016x}" for number, path in enumerate(sorted(set(paths.values())))}
    document = with_file_ids(spec, {field: ids[path] for field, path in paths.items()}).document
    return SPEC.validate_python(document), {file_id: path for path, file_id in ids.items()}


def test_there_is_one_of_each_of_these_kinds() -> None:
    kinds = {uploaded(name)[0].kind for name in NAMES}
    assert kinds >= {"finetune", "evaluate", "compare", "analyze"}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid_and_names_only_rows_that_lie_beside_it(name: str) -> None:
    spec, files = uploaded(name)
    assert set(file_ids(spec).values()) == set(files)
    assert {path.parent for path in files.values()} == {FOLDER}
    for path in files.values():
        assert list(iter_rows(path, parse_either_row))


@pytest.mark.parametrize("name", ["evaluate.yaml", "compare.yaml"])
def test_the_questions_of_its_tasks_can_be_scored(name: str) -> None:
    spec, files = uploaded(name)
    assert isinstance(spec, EvaluateSpec | CompareSpec)
    refs = {
        file_id: FileRef(uri=str(path), sha256="0" * 64, num_rows=1)
        for file_id, path in files.items()
    }
    for task in read_tasks(spec.tasks, refs):
        assert len(task.questions) >= 8
