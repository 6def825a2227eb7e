"""What a dry run answers: the numbers, or why the job would fail."""

from pathlib import Path
from typing import Any

import pytest

from jobs.dry_run import answer_to
from jobs.finetune_specs import FinetuneSpec
from jobs.tickets import DryRunTicket, FileRef
from service.answers import Answer, DryRunRead
from tests.tiny_model import write_addition_rows

FILE_ID = "file-0123456789abcdef"
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


def test_the_answer_has_every_field_of_the_apis_and_no_other(ticket: DryRunTicket) -> None:
    result = answer_to(ticket, NODES)["result"]
    assert result.keys() == fields(DryRunRead)
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
