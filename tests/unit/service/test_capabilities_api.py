"""What a service says it can do, held to what it does."""

from pathlib import Path
from typing import get_args

from jobs.specs import JobKind
from service.callers import Scope
from service.capabilities import choices, members
from service.key_tokens import KeyToken
from tests.unit.service.stage import Stage, make_settings
from workers.chat_templates import CHAT_TEMPLATES
from workers.specs import HypLoraSpec
from workers.tasks.registry import TASKS

READER = KeyToken("key-00000000000000ee", "E" * 43)


async def test_a_service_tells_what_jobs_can_be_asked_for(stage: Stage) -> None:
    found = await stage.get("/v1/capabilities")

    assert found["kinds"] == list(JobKind)
    assert found["tasks"] == list(TASKS)
    assert set(found["chat_templates"]) == set(CHAT_TEMPLATES)
    assert found["scorers"] == ["number", "letter", "option", "exact", "regex", "f1"]
    assert found["dtypes"] == ["auto", "float32", "bfloat16"]
    assert found["quantizations"] == ["8bit", "4bit"]
    assert found["adapters"] == [
        {
            "method": "hyplora",
            "projections": list(get_args(HypLoraSpec.model_fields["projection"].annotation)),
            "rank": {"minimum": 1, "maximum": 512},
        },
        {"method": "lora", "projections": [], "rank": {"minimum": 1, "maximum": 512}},
    ]
    assert found["searchers"] == {
        "algorithms": ["tpe", "random", "grid"],
        "early_stopping": ["asha", "median"],
        "objectives": [
            "eval/loss",
            "train/loss",
            "num_trainable_parameters",
            "seconds_a_step",
        ],
        "task_measures": ["accuracy", "nll"],
    }
    assert found["presets"][0] == "base"


async def test_every_adapter_that_is_told_can_be_asked_for(stage: Stage) -> None:
    for adapter in (await stage.get("/v1/capabilities"))["adapters"]:
        for projection in adapter["projections"] or [None]:
            for rank in adapter["rank"].values():
                wanted = {"method": adapter["method"], "r": rank, "projection": projection}
                given = {key: value for key, value in wanted.items() if value is not None}
                await stage.submit(adapter=given)


async def test_base_models_are_those_that_the_operator_allows(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, allowed_base_models="Qwen/*,models:/*")
    async with Stage(settings) as stage:
        assert (await stage.get("/v1/capabilities"))["base_models"] == ["Qwen/*", "models:/*"]


async def test_limits_are_those_of_the_settings(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, max_upload_bytes=12345, max_live_drivers=7)
    async with Stage(settings) as stage:
        limits = (await stage.get("/v1/capabilities"))["limits"]

    assert limits == {
        "max_upload_bytes": 12345,
        "max_body_bytes": 1024**2,
        "max_live_drivers": 7,
        "max_attempts": 3,
        "max_dry_runs": 2,
        "requests_per_minute": 600,
        "requests_burst": 600,
    }


async def test_a_key_learns_what_it_may_do(stage: Stage) -> None:
    await stage.admit(READER, Scope.SUBMIT, project="ours")
    headers = {"Authorization": f"Bearer {READER.text}"}

    found = (await stage.client.get("/v1/capabilities", headers=headers)).json()

    assert found["project"] == "ours"
    assert found["scopes"] == ["read", "submit"]


def test_a_field_without_choices_has_none() -> None:
    assert choices(HypLoraSpec, "curvature") == []
    assert choices(HypLoraSpec, "none") == []
    assert members(HypLoraSpec) == [HypLoraSpec]
