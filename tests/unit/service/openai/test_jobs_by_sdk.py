"""OpenAI's own client begins, watches and ends fine-tunes."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.fine_tuning import FineTuningJob

from service.boundaries import DriverState
from service.openai.specs import DEFAULT_LEARNING_RATE
from tests.unit.service.openai.sdk import require_form
from tests.unit.service.stage import Stage
from workers.specs import RunMetric, TrainingSpec

CHOSEN = {"n_epochs": 7, "batch_size": 4, "learning_rate_multiplier": 0.1}


async def create(stage: Stage, sdk: AsyncOpenAI, **fields: Any) -> FineTuningJob:
    asked = {"model": "tiny", "training_file": await stage.upload()} | fields
    return await sdk.fine_tuning.jobs.create(**asked)


async def test_a_job_of_a_model_and_a_file_is_queued_with_everything_else_as_by_default(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    job = await create(stage, sdk, model="org/tiny-1.5")

    require_form(job)
    assert (job.object, job.status, job.model) == ("fine_tuning.job", "queued", "org/tiny-1.5")
    assert (job.fine_tuned_model, job.finished_at, job.error) == (None, None, None)
    assert (job.trained_tokens, job.result_files, job.validation_file) == (None, [], None)
    assert job.organization_id == "default"
    spec = (await stage.job(job.id))["spec"]
    assert spec["name"].startswith("tiny-1.5-")
    asked = {"train": spec["data"]["train"], "name": spec["name"], "base_model": job.model}
    assert spec == (await stage.job(await stage.submit(**asked)))["spec"]


async def test_two_jobs_without_a_suffix_make_two_models(stage: Stage, sdk: AsyncOpenAI) -> None:
    ids = [(await create(stage, sdk)).id for _ in range(2)]

    names = {(await stage.job(job_id))["name"] for job_id in ids}

    assert len(names) == 2


async def test_auto_is_answered_with_the_values_that_the_job_runs_with(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    auto = dict.fromkeys(CHOSEN, "auto")

    job = await create(
        stage,
        sdk,
        method={"type": "supervised", "supervised": {"hyperparameters": auto}},
    )

    default = TrainingSpec()
    resolved = {"batch_size": default.batch_size, "n_epochs": default.num_epochs}
    resolved["learning_rate_multiplier"] = 1.0
    assert job.hyperparameters.to_dict() == resolved
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.to_dict() == resolved
    training = (await stage.job(job.id))["spec"]["training"]
    assert training == default.model_dump(mode="json")


@pytest.mark.parametrize(
    "fields",
    [
        {"method": {"type": "supervised", "supervised": {"hyperparameters": CHOSEN}}},
        {"hyperparameters": CHOSEN},
    ],
    ids=["method", "as older clients do"],
)
async def test_hyperparameters_that_are_chosen_are_trained_with(
    stage: Stage, sdk: AsyncOpenAI, fields: dict[str, Any]
) -> None:
    job = await create(stage, sdk, seed=11, **fields)

    assert job.hyperparameters.to_dict() == CHOSEN
    assert job.seed == 11
    training = (await stage.job(job.id))["spec"]["training"]
    assert (training["num_epochs"], training["batch_size"], training["seed"]) == (7, 4, 11)
    assert training["learning_rate"] == pytest.approx(0.1 * DEFAULT_LEARNING_RATE)


async def test_hyplora_takes_the_adapters_fields_and_sections_of_a_specification(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    held_out = await stage.upload()
    hyplora = {
        "r": 4,
        "alpha": 8,
        "curvature": 2.5,
        "projection": "stereographic",
        "data": {"max_length": 128},
        "training": {"max_steps": 12, "learning_rate": 0.01},
        "resources": {"num_workers": 2},
        "registry": {"alias": "champion"},
        "tags": ["nightly"],
        "priority": 3,
    }

    job = await create(
        stage,
        sdk,
        suffix="sums",
        validation_file=held_out,
        metadata={"team": "maths"},
        extra_body={"method": {"type": "supervised", "hyplora": hyplora}},
    )

    record = await stage.job(job.id)
    spec = record["spec"]
    assert (record["name"], record["tags"], record["priority"]) == ("sums", ["nightly"], 3)
    assert (spec["adapter"]["method"], spec["adapter"]["r"]) == ("hyplora", 4)
    assert (spec["adapter"]["curvature"], spec["adapter"]["projection"]) == (2.5, "stereographic")
    assert (spec["data"]["validation"], spec["data"]["max_length"]) == (held_out, 128)
    assert (spec["training"]["max_steps"], spec["training"]["learning_rate"]) == (12, 0.01)
    assert spec["resources"]["num_workers"] == 2
    assert spec["registry"]["alias"] == "champion"
    assert (job.validation_file, job.metadata) == (held_out, {"team": "maths"})


@pytest.mark.parametrize("hyplora", [{"curvature": 2.5}, {"method": "lora", "use_dora": True}])
async def test_a_job_can_be_asked_for_again_with_the_method_that_it_answers(
    stage: Stage, sdk: AsyncOpenAI, hyplora: dict[str, Any]
) -> None:
    first = await create(
        stage,
        sdk,
        suffix="sums",
        hyperparameters=CHOSEN,
        extra_body={"method": {"hyplora": hyplora}},
    )
    assert first.method is not None

    second = await sdk.fine_tuning.jobs.create(
        model=first.model,
        training_file=first.training_file,
        suffix="sums",
        seed=first.seed,
        method=first.method.to_dict(),  # type: ignore[arg-type]
    )

    assert second.method == first.method
    assert (await stage.job(second.id))["spec"] == (await stage.job(first.id))["spec"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": {}}}, "method.type"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"suffix": "two words"}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"model": "sums:3"}, "model"),
        ({"model": ""}, "model"),
        ({"metadata": {"a/b": "c"}}, "metadata.a/b"),
        ({"extra_body": {"epochs": 3}}, "epochs"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"lr": 1}}}},
            "method.supervised.hyperparameters.lr",
        ),
        ({"method": {"hyplora": {"curvature": -1}}}, "method.hyplora.curvature"),
        ({"method": {"hyplora": {"rank": 4}}}, "method.hyplora.rank"),
        ({"method": {"hyplora": {"training": {"steps": 4}}}}, "method.hyplora.training.steps"),
        ({"method": {"hyplora": {"data": {"train": "x"}}}}, "method.hyplora.data.train"),
        ({"training_file": "rows.jsonl"}, "training_file"),
        (
            {
                "hyperparameters": {"batch_size": 3},
                "method": {"hyplora": {"resources": {"num_workers": 2}}},
            },
            "method.supervised.hyperparameters.batch_size",
        ),
        (
            {"seed": 1, "method": {"hyplora": {"training": {"seed": 2}}}},
            "seed",
        ),
        (
            {
                "hyperparameters": {"n_epochs": 1},
                "method": {"supervised": {"hyperparameters": {"n_epochs": 1}}},
            },
            "hyperparameters",
        ),
    ],
    ids=str,
)
async def test_what_cannot_be_honoured_is_refused_by_the_name_of_its_field(
    stage: Stage, sdk: AsyncOpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await create(stage, sdk, **fields)

    assert (refused.value.code, refused.value.type) == ("spec-invalid", "invalid_request_error")
    assert refused.value.param == param
    assert (await stage.get("/v1/jobs"))["data"] == []


async def test_a_file_that_was_never_uploaded_is_not_found_by_the_name_of_its_field(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await create(stage, sdk, training_file="file-0000000000000000")

    assert (refused.value.code, refused.value.param) == ("file-not-found", "training_file")
    assert "training_file: no such file" in str(refused.value)


async def test_the_same_idempotency_key_makes_one_job(stage: Stage, sdk: AsyncOpenAI) -> None:
    headers = {"Idempotency-Key": "once"}
    asked = {"training_file": await stage.upload(), "extra_headers": headers}

    first = await create(stage, sdk, **asked)
    second = await create(stage, sdk, **asked)
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await create(stage, sdk, **asked, seed=5)

    assert first.id == second.id
    assert refused.value.code == "idempotency-key-reused"
    assert len((await stage.get("/v1/jobs"))["data"]) == 1


async def test_lists_hold_the_fine_tunes_of_every_route_and_no_other_kind(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    ids = [await stage.submit(), (await create(stage, sdk)).id, await stage.submit()]
    search_id = await stage.begin(await stage.search_spec())

    page = await sdk.fine_tuning.jobs.list(limit=2)
    everything = [job async for job in sdk.fine_tuning.jobs.list(limit=2)]

    assert (page.has_more, len(page.data)) == (True, 2)
    assert [job.id for job in everything] == ids[::-1]
    for job in everything:
        require_form(job)
    with pytest.raises(openai.NotFoundError):
        await sdk.fine_tuning.jobs.retrieve(search_id)


async def test_lists_are_filtered_by_metadata(stage: Stage, sdk: AsyncOpenAI) -> None:
    ours = await create(stage, sdk, metadata={"team": "maths", "run": "1"})
    await create(stage, sdk, metadata={"team": "arts"})

    found = await sdk.fine_tuning.jobs.list(metadata={"team": "maths", "run": "1"})

    assert [job.id for job in found.data] == [ours.id]
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await sdk.fine_tuning.jobs.list(extra_query={"metadata": "null"})
    assert refused.value.param == "metadata"


async def test_a_job_is_paused_resumed_and_cancelled(stage: Stage, sdk: AsyncOpenAI) -> None:
    job = await create(stage, sdk)
    jobs = sdk.fine_tuning.jobs
    await stage.work()

    pausing = await jobs.pause(job.id)
    await stage.work()
    stage.ray.end(f"{job.id}-a1", DriverState.STOPPED)
    await stage.work()
    paused = await jobs.retrieve(job.id)
    resumed = await jobs.resume(job.id)
    cancelling = await jobs.cancel(job.id)
    await stage.work(2)

    assert [pausing.status, paused.status] == ["running", "paused"]
    assert [resumed.status, cancelling.status] == ["queued", "running"]
    assert cancelling.to_dict()["hyplora"]["status"] == "cancelling"  # type: ignore[index]
    assert (await jobs.retrieve(job.id)).status == "cancelled"


async def test_a_change_that_comes_too_late_is_a_conflict_and_not_tried_again(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    job = await create(stage, sdk)
    await sdk.fine_tuning.jobs.cancel(job.id)

    with pytest.raises(openai.ConflictError) as refused:
        await sdk.with_options(max_retries=2).fine_tuning.jobs.cancel(job.id)

    assert refused.value.code == "job-already-ended"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_a_job_that_has_succeeded_names_its_model_and_its_tokens(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    job = await create(stage, sdk)
    await stage.work()
    measured = {RunMetric.STEP: 5, RunMetric.TOTAL_STEPS: 10, RunMetric.SECONDS_LEFT: 60}
    stage.mlflow.measure(stage.run_id(job.id), {**measured, RunMetric.NUM_TOKENS: 1234})
    await stage.work()
    running = await sdk.fine_tuning.jobs.retrieve(job.id)
    stage.succeed(job.id)
    await stage.work()

    ended = await sdk.fine_tuning.jobs.retrieve(job.id)

    require_form(ended)
    assert (running.status, running.trained_tokens) == ("running", None)
    assert running.estimated_finish is not None
    assert running.estimated_finish >= running.created_at + 60
    assert (ended.status, ended.fine_tuned_model) == ("succeeded", "sums:3")
    assert (ended.trained_tokens, ended.estimated_finish) == (1234, None)
    assert ended.finished_at is not None


async def test_a_job_that_has_failed_says_why_and_which_field_it_was(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    job = await create(stage, sdk)
    await stage.work()
    stage.fail(job.id, "row-too-long", "line 3 has 900 tokens")
    await stage.work()

    failed = await sdk.fine_tuning.jobs.retrieve(job.id)

    require_form(failed)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.to_dict() == {
        "code": "row-too-long",
        "message": "line 3 has 900 tokens",
        "param": "training_file",
    }


async def test_events_are_listed_newest_first_with_metrics_among_them(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    job = await create(stage, sdk)
    await stage.work()
    measured = {RunMetric.STEP: 2, RunMetric.TOTAL_STEPS: 10, RunMetric.LOSS: 0.5}
    stage.mlflow.measure(stage.run_id(job.id), measured)
    await stage.work()
    stage.fail(job.id, "internal", "boom")
    await stage.work()

    events = [event async for event in sdk.fine_tuning.jobs.list_events(job.id, limit=2)]

    for event in events:
        require_form(event)
    told = [(event.type, event.level, event.message.partition(":")[0]) for event in events]
    assert told == [
        ("message", "error", "The job is failed"),
        ("metrics", "info", "Step 2/10"),
        ("message", "info", "The job is running"),
        ("message", "info", "The job is queued"),
    ]
    metrics = events[1].data
    assert isinstance(metrics, dict)
    assert (metrics["step"], metrics["train_loss"]) == (2, 0.5)
    assert [event.id for event in events] == [
        f"ftevent-{event['id']}" for event in reversed(await stage.events(job.id))
    ]


async def test_a_page_of_events_begins_at_an_event(stage: Stage, sdk: AsyncOpenAI) -> None:
    job = await create(stage, sdk)

    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await sdk.fine_tuning.jobs.list_events(job.id, after="12")

    assert (refused.value.code, refused.value.param) == ("request-invalid", "after")


async def test_checkpoints_are_listed_newest_first_with_their_losses(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    job = await create(stage, sdk)
    await stage.work()
    run_id = stage.run_id(job.id)
    for metric, points in {
        RunMetric.LOSS: [(50, 2.0), (100, 1.0)],
        RunMetric.EVAL_LOSS: [(100, 1.5)],
        RunMetric.CHECKPOINT_STEP: [(50, 50.0), (100, 100.0)],
    }.items():
        stage.mlflow.log(run_id, metric, points)
    stage.succeed(job.id)
    await stage.work()

    page = await sdk.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
    newest, oldest = [each async for each in sdk.fine_tuning.jobs.checkpoints.list(job.id, limit=1)]

    assert page.has_more
    for checkpoint in (newest, oldest):
        require_form(checkpoint)
        assert checkpoint.fine_tuning_job_id == job.id
    assert (newest.step_number, newest.fine_tuned_model_checkpoint) == (100, "sums:3")
    assert (newest.metrics.train_loss, newest.metrics.full_valid_loss) == (1.0, 1.5)
    assert (oldest.step_number, oldest.fine_tuned_model_checkpoint) == (50, oldest.id)
    assert (oldest.metrics.train_loss, oldest.metrics.full_valid_loss) == (2.0, None)


async def test_a_job_that_has_ended_leaves_a_file_of_its_losses(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    job = await create(stage, sdk)
    await stage.work()
    run_id = stage.run_id(job.id)
    stage.mlflow.measure(run_id, {RunMetric.STEP: 3})
    stage.mlflow.log(run_id, RunMetric.LOSS, [(1, 2.5), (2, float("nan")), (3, 1.0)])
    stage.mlflow.log(run_id, RunMetric.EVAL_LOSS, [(3, 1.5)])
    stage.succeed(job.id)
    await stage.work()
    ended = await sdk.fine_tuning.jobs.retrieve(job.id)

    (file_id,) = ended.result_files
    file = await sdk.files.retrieve(file_id)
    table = (await sdk.files.content(file_id)).text

    require_form(file)
    assert (file.purpose, file.filename) == ("fine-tune-results", "step_metrics.csv")
    assert file.bytes == len(table)
    assert table.splitlines() == ["step,train_loss,full_valid_loss", "1,2.5,", "2,,", "3,1.0,1.5"]


async def test_a_job_that_was_never_begun_leaves_no_file(stage: Stage, sdk: AsyncOpenAI) -> None:
    job = await create(stage, sdk)
    cancelled = await sdk.fine_tuning.jobs.cancel(job.id)

    assert cancelled.result_files == []
    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.files.content(job.id.replace("job-", "result-"))
    assert missing.value.code == "file-not-found"
