"""What a dry run answers: the numbers, or why the job would fail."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from jobs.dry_run import answer_to
from jobs.finetune_specs import FinetuneSpec
from jobs.specs import JobSpec
from jobs.tickets import DryRunTicket, FileRef
from service.answers import Answer, DryRunRead
from tests.tiny_model import write_addition_rows

FILE_ID = "file-0123456789abcdef"
TASK_ID = "file-fedcba9876543210"
COUNTS = {"num_trainings", "num_evaluations", "num_questions"}
NODES = [{"CPU": 2.0, "memory": 4.0 * 2**30}]


@pytest.fixture
def ticket(tiny_model_dir: Path, tmp_path: Path) -> DryRunTicket:
    rows = write_addition_rows(tmp_path / "rows.jsonl", num_rows=32)
    spec = FinetuneSpec.model_validate(
        {
            "kind": "finetune",
            "name": "sums",
            "base_model": str(tiny_model_dir),
            "data": {"train": FILE_ID, "validation_rows": 2},
            "training": {"num_epochs": 2, "batch_size": 8},
        }
    )
    return DryRunTicket(
        spec=spec, files={FILE_ID: FileRef(uri=str(rows), sha256="0" * 64, num_rows=32)}
    )


def changed(ticket: DryRunTicket, **sections: Any) -> DryRunTicket:
    spec = ticket.spec.model_dump(mode="json")
    for section, values in sections.items():
        spec[section] = spec[section] | values if isinstance(values, dict) else values
    return DryRunTicket(spec=FinetuneSpec.model_validate(spec), files=ticket.files)


def fields(model: type[Answer]) -> set[str]:
    return set(model.model_fields)


def test_the_answer_has_every_field_of_a_training_and_no_other(ticket: DryRunTicket) -> None:
    result = answer_to(ticket, NODES)["result"]
    assert result.keys() == fields(DryRunRead) - COUNTS
    read = DryRunRead.model_validate(result)
    assert read.memory is not None
    assert result["memory"].keys() == fields(type(read.memory))
    assert result["placement"].keys() == fields(type(read.placement))
    assert (read.steps, read.num_train_rows, read.num_held_out_rows) == (8, 30, 2)
    assert read.placement.possible
    assert read.memory_fits


def test_what_no_node_can_hold_is_an_answer_with_its_reason(ticket: DryRunTicket) -> None:
    result = answer_to(changed(ticket, resources={"cpus_per_worker": 9}), NODES)["result"]
    assert not result["placement"]["possible"]
    assert "need 9 CPU" in result["placement"]["reason"]
    assert result["memory_fits"] is None
    assert result["steps"] == 8


@pytest.mark.parametrize(
    ("sections", "code", "sentence"),
    [
        ({"base_model": "/no/such/folder"}, "base-model-not-found", "/no/such/folder"),
        ({"data": {"max_length": 8}}, "row-too-long", "data.train, line 1 has"),
        ({"data": {"validation_rows": 32}}, "data-invalid", "none is left to train on"),
        ({"adapter": {"target_modules": ["q"]}}, "target-modules-not-found", "match nothing"),
    ],
)
def test_what_would_fail_the_job_is_answered_with_its_code(
    ticket: DryRunTicket, sections: dict[str, Any], code: str, sentence: str
) -> None:
    failure = answer_to(changed(ticket, **sections), NODES)["failure"]
    assert failure["code"] == code
    assert sentence in failure["message"]


def test_a_data_set_that_is_gone_from_storage_is_named(ticket: DryRunTicket) -> None:
    Path(ticket.files[FILE_ID].uri).unlink()
    failure = answer_to(ticket, NODES)["failure"]
    assert failure["code"] == "data-invalid"


SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
TASK = {"name": "sums", "scorer": {"kind": "number"}, "data": TASK_ID}


def asking(ticket: DryRunTicket, folder: Path, **spec: Any) -> DryRunTicket:
    """A ticket of another kind, whose task has five questions with answers alone."""
    questions = [{"instruction": f"{n} + {n} = ?", "answer": 2 * n} for n in range(5)]
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in questions))
    files = {**ticket.files, TASK_ID: FileRef(uri=str(path), sha256="1" * 64, num_rows=5)}
    fixed = {"name": "exam", "base_model": ticket.spec.base_model}
    return DryRunTicket(spec=SPEC.validate_python(fixed | spec), files=files)


def test_a_search_by_tasks_is_a_trial_and_the_questions_that_each_is_asked(
    ticket: DryRunTicket, tmp_path: Path
) -> None:
    searched = asking(
        ticket,
        tmp_path,
        kind="search",
        data={"train": FILE_ID},
        training={"num_epochs": 2, "batch_size": 8},
        space={"adapter.r": {"choice": [4, 8]}},
        tasks=[TASK],
        objectives=[{"metric": "accuracy/sums", "mode": "max"}],
    )

    read = DryRunRead.model_validate(answer_to(searched, NODES)["result"])

    assert (read.steps, read.num_questions) == (8, 5)
    assert read.placement.possible


def test_a_comparison_is_one_training_and_how_many_there_are(
    ticket: DryRunTicket, tmp_path: Path
) -> None:
    compared = asking(
        ticket,
        tmp_path,
        kind="compare",
        methods=["base", "lora", "hyplora"],
        seeds=[0, 1],
        learning_rates=[1e-3, 1e-2],
        data={"train": FILE_ID, "validation_rows": 2},
        training={"num_epochs": 2, "batch_size": 8},
        tasks=[TASK],
    )

    read = DryRunRead.model_validate(answer_to(compared, NODES)["result"])

    assert (read.steps, read.num_train_rows, read.num_held_out_rows) == (8, 30, 2)
    # Of each of two methods: two rates with the first seed, then the better one with the second.
    assert (read.num_trainings, read.num_evaluations, read.num_questions) == (6, 5, 5)
    assert read.memory is not None


def test_an_evaluation_counts_what_is_asked(ticket: DryRunTicket, tmp_path: Path) -> None:
    alone = {"kind": "evaluate", "tasks": [TASK], "max_new_tokens": 8}
    shown = TASK | {"num_shots": 2, "shots": FILE_ID, "max_rows": 3}
    plain = asking(ticket, tmp_path, models=["base", "models:/sums/1"], **alone)
    with_shots = asking(ticket, tmp_path, **alone | {"tasks": [shown]})

    result = answer_to(plain, NODES)["result"]
    read = DryRunRead.model_validate(result)
    after_shots = DryRunRead.model_validate(answer_to(with_shots, NODES)["result"])

    assert result.keys() <= fields(DryRunRead)
    assert (read.num_evaluations, read.num_questions, read.num_trainings) == (2, 5, None)
    # Bytes, the role and its marks: "<start>user 0 + 0 = ?<end> <start>assistant "
    assert read.longest_row * 5 == read.num_tokens
    assert (read.steps, read.memory, read.num_trainable_parameters) == (None, None, None)
    assert read.placement.possible
    assert after_shots.num_questions == 3
    assert after_shots.longest_row > 2 * read.longest_row


def test_an_analysis_counts_its_rows(ticket: DryRunTicket, tmp_path: Path) -> None:
    analyzed = asking(ticket, tmp_path, kind="analyze", data=FILE_ID)
    read = DryRunRead.model_validate(answer_to(analyzed, NODES)["result"])
    assert (read.num_questions, read.num_evaluations) == (32, None)
    assert 32 * 8 < read.num_tokens < 32 * 40
    assert read.num_parameters > 1000


@pytest.mark.parametrize(
    ("kind", "spec", "code", "sentence"),
    [
        ("evaluate", {"base_model": "/no/such"}, "base-model-not-found", "/no/such"),
        ("analyze", {"data": TASK_ID}, "data-invalid", "data, line 1, output: is missing"),
        (
            "evaluate",
            {"tasks": [TASK | {"scorer": {"kind": "letter"}}]},
            "data-invalid",
            "task sums (tasks.0.data), line 1, answer: ",
        ),
        (
            "evaluate",
            {"tasks": [TASK | {"num_shots": 9, "shots": FILE_ID}]},
            "row-too-long",
            "task sums: prompt 1 has",
        ),
    ],
)
def test_what_would_fail_an_evaluation_or_an_analysis_is_answered_with_its_code(
    ticket: DryRunTicket,
    tmp_path: Path,
    kind: str,
    spec: dict[str, Any],
    code: str,
    sentence: str,
) -> None:
    fixed: dict[str, Any] = {"evaluate": {"tasks": [TASK]}, "analyze": {"data": FILE_ID}}[kind]
    asked = asking(ticket, tmp_path, kind=kind, **fixed | spec)
    failure = answer_to(asked, NODES)["failure"]
    assert failure["code"] == code
    assert sentence in failure["message"]
