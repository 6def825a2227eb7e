"""OpenAI's own client looks up and deletes registered adapters."""

import openai
import pytest
from openai import AsyncOpenAI

from service.callers import Scope
from service.key_tokens import KeyToken
from tests.unit.service.openai.sdk import client_of, require_form
from tests.unit.service.stage import Stage

STRANGER = KeyToken("key-00000000000000bb", "S" * 43)


async def test_the_model_of_a_job_is_found_under_the_id_that_the_job_names(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    job_id = await stage.started()
    stage.succeed(job_id)
    await stage.work()
    for _ in range(3):
        stage.registry.register("sums", run_id=stage.run_id(job_id))
    job = await sdk.fine_tuning.jobs.retrieve(job_id)
    assert job.fine_tuned_model is not None

    model = await sdk.models.retrieve(job.fine_tuned_model)

    require_form(model)
    assert (model.id, model.object, model.owned_by) == ("sums:3", "model", "default")


async def test_an_alias_leads_to_the_version_that_it_points_at(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    stage.registry.register("sums", alias="champion")
    stage.registry.register("sums")

    assert (await sdk.models.retrieve("sums@champion")).id == "sums:1"


async def test_the_newest_version_of_each_model_is_listed(stage: Stage, sdk: AsyncOpenAI) -> None:
    for name in ("sums", "sums", "haiku"):
        stage.registry.register(name)

    page = await sdk.models.list()

    for model in page.data:
        require_form(model)
    assert [model.id for model in page.data] == ["haiku:1", "sums:2"]


async def test_a_version_is_deleted_unless_an_alias_points_at_it(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    stage.registry.register("sums", alias="champion")
    stage.registry.register("sums")

    with pytest.raises(openai.ConflictError) as refused:
        await sdk.models.delete("sums:1")
    deleted = await sdk.models.delete("sums:2")

    require_form(deleted)
    assert refused.value.code == "model-in-use"
    assert (deleted.id, deleted.object, deleted.deleted) == ("sums:2", "model", True)
    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.models.retrieve("sums:2")
    assert missing.value.code == "model-version-not-found"


@pytest.mark.parametrize("model", ["sums", "org/base", "a:b:c", "sums:x", "sums@", "sums:1/../x"])
async def test_what_is_no_adapter_is_not_found(stage: Stage, sdk: AsyncOpenAI, model: str) -> None:
    stage.registry.register("sums")

    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.models.retrieve(model)

    assert (missing.value.code, missing.value.param) == ("model-not-found", "model")


async def test_models_of_another_project_are_not_found(stage: Stage, sdk: AsyncOpenAI) -> None:
    await stage.admit(STRANGER, Scope.SUBMIT, project="theirs")
    stage.registry.register("sums")

    async with client_of(stage, STRANGER.text) as stranger:
        assert (await stranger.models.list()).data == []
        with pytest.raises(openai.NotFoundError):
            await stranger.models.delete("sums:1")

    assert (await sdk.models.retrieve("sums:1")).id == "sums:1"


async def test_a_job_cannot_register_under_a_name_of_another_project(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    await stage.admit(STRANGER, Scope.SUBMIT, project="theirs")
    file_id = await stage.upload()
    await sdk.fine_tuning.jobs.create(model="tiny", training_file=file_id, suffix="sums")

    async with client_of(stage, STRANGER.text) as stranger:
        own = await stranger.files.create(
            file=b'{"prompt": "a", "completion": "b"}\n', purpose="fine-tune"
        )
        with pytest.raises(openai.ConflictError) as refused:
            await stranger.fine_tuning.jobs.create(
                model="tiny", training_file=own.id, suffix="sums"
            )

    assert (refused.value.code, refused.value.param) == ("model-name-taken", "suffix")
