"""What users may ask for, and what is refused at the edge."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.finetune_specs import FinetuneSpec
from jobs.tickets import JobTicket

FILE_ID = "file-0123456789abcdef"


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "finetune",
        "name": "sums",
        "base_model": "some/model",
        "data": {"train": FILE_ID},
    } | changes


def refused_fields(body: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as refusal:
        FinetuneSpec.model_validate(body)
    return [".".join(map(str, error["loc"])) for error in refusal.value.errors()]


def test_a_spec_needs_a_name_a_base_model_and_rows_only() -> None:
    parsed = FinetuneSpec.model_validate(spec())
    assert parsed.adapter.method == "hyplora"
    assert parsed.registered_model_name == "sums"


def test_an_adapter_without_a_method_is_hyplora_and_lora_is_asked_for_by_name() -> None:
    hyplora = FinetuneSpec.model_validate(spec(adapter={"r": 4, "curvature": 0.5}))
    lora = FinetuneSpec.model_validate(spec(adapter={"method": "lora", "r": 4}))
    assert (hyplora.adapter.method, lora.adapter.method) == ("hyplora", "lora")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"surprise": 1}, "surprise"),
        ({"adapter": {"curvature": 0}}, "adapter.hyplora.curvature"),
        ({"adapter": {"curvature": -1.0}}, "adapter.hyplora.curvature"),
        ({"adapter": {"curvature": float("inf")}}, "adapter.hyplora.curvature"),
        ({"adapter": {"r": 0}}, "adapter.hyplora.r"),
        ({"adapter": {"method": "lora", "curvature": 1.0}}, "adapter.lora.curvature"),
        ({"adapter": {"method": "unknown"}}, "adapter"),
        ({"adapter": {"target_modules": []}}, "adapter.hyplora.target_modules"),
        ({"name": "../escape"}, "name"),
        ({"name": "$(reboot)"}, "name"),
        ({"data": {"train": "file-../../etc"}}, "data.train"),
        ({"data": {"train": FILE_ID, "validation": FILE_ID, "validation_rows": 3}}, "data"),
        ({"training": {"max_steps": 0}}, "training.max_steps"),
        ({"resources": {"num_workers": -1}}, "resources.num_workers"),
        ({"resources": {"cpus_per_worker": -1}}, "resources.cpus_per_worker"),
        ({"registry": {"alias": "latest"}}, "registry.alias"),
        ({"registry": {"alias": "v3"}}, "registry.alias"),
        ({"registry": {"alias": "Latest"}}, "registry.alias"),
        ({"registry": {"alias": "best.one"}}, "registry.alias"),
        ({"registry": {"model_name": "a/b"}}, "registry.model_name"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_bad_spec_is_refused_with_the_field_that_is_wrong(
    changes: dict[str, Any], field: str
) -> None:
    assert any(place.startswith(field) for place in refused_fields(spec(**changes)))


def test_a_batch_that_workers_cannot_share_evenly_is_refused() -> None:
    body = spec(training={"batch_size": 4}, resources={"num_workers": 3})
    with pytest.raises(ValidationError, match=r"batch_size: 4 must be a multiple of .* 3"):
        FinetuneSpec.model_validate(body)


def test_a_ticket_survives_its_journey_as_json() -> None:
    ticket = JobTicket(
        job_id="job-1",
        attempt=1,
        run_id="run",
        tracking_uri="http://127.0.0.1:5000",
        storage_path="/storage",
        spec=FinetuneSpec.model_validate(spec(adapter={"method": "lora"})),
        files={FILE_ID: {"uri": "/files/a", "sha256": "0" * 64, "num_rows": 3}},  # type: ignore[dict-item]
    )
    assert JobTicket.model_validate_json(ticket.model_dump_json()) == ticket


def test_importing_the_specs_imports_neither_torch_nor_ray_nor_mlflow() -> None:
    loaded = "{'torch', 'ray', 'mlflow'} & sys.modules.keys()"
    code = f"import sys, jobs.specs, jobs.tickets; sys.exit(bool({loaded}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
