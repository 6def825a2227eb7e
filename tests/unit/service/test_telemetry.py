"""What Prometheus is told, as its own parser reads it."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from service.boundaries import DriverState
from service.callers import Scope
from service.database import Database
from service.errors import DatabaseUnavailableError
from service.key_tokens import KeyToken
from service.telemetry import Telemetry
from tests.unit.service.stage import Stage, make_settings

SCRAPER = KeyToken("key-00000000000000cc", "P" * 43)


async def scraped(stage: Stage) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    response = await stage.client.get("/metrics")
    assert response.status_code == 200, response.text
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return samples


async def with_fresh_census(stage: Stage) -> dict[str, dict[tuple[str, ...], float]]:
    stage.parts.exposition._census._census = None
    return await scraped(stage)


async def test_figures_need_a_key_that_may_read_them(stage: Stage) -> None:
    await stage.admit(SCRAPER, Scope.SCRAPE)
    reader = KeyToken("key-00000000000000dd", "R" * 43)
    await stage.admit(reader, Scope.SUBMIT)

    async def status(path: str, token: KeyToken | None) -> int:
        headers = {"Authorization": f"Bearer {token.text}" if token else ""}
        return (await stage.client.get(path, headers=headers)).status_code

    assert await status("/metrics", None) == 401
    assert await status("/metrics", reader) == 403
    assert await status("/metrics", SCRAPER) == 200
    assert await status("/v1/jobs", SCRAPER) == 403
    assert await status("/v1/keys", SCRAPER) == 403


async def test_prometheus_gets_the_format_that_it_asks_for(stage: Stage) -> None:
    plain = await stage.client.get("/metrics")
    openmetrics = await stage.client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )

    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(openmetrics.text)}
    assert {"hyplora", "hyplora_http_requests", "hyplora_live_drivers"} <= names
    assert "_created" not in plain.text


async def test_requests_are_counted_by_template_method_and_status(stage: Stage) -> None:
    job_id = await stage.submit()
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs/job-0", "/v1/jobs/job-1", "/nowhere/42", "/docs"):
        await stage.client.get(path)
    await stage.client.delete("/v1/jobs")
    await stage.client.request("BREW", "/v1/jobs")

    samples = await scraped(stage)

    requests = samples["hyplora_http_requests_total"]
    assert requests["GET", "/v1/jobs/{job_id}", "200"] == 1
    assert requests["GET", "/v1/jobs/{job_id}", "404"] == 2
    assert requests["GET", "none", "404"] == 1
    assert requests["GET", "/docs", "200"] == 1
    assert requests["POST", "/v1/files", "201"] == 1
    assert requests["DELETE", "/v1/jobs", "405"] == 1
    assert requests["other", "/v1/jobs", "405"] == 1
    assert job_id not in str(requests)
    assert samples["hyplora_http_request_seconds_count"]["GET", "/v1/jobs/{job_id}"] == 3


async def test_every_route_has_its_template(stage: Stage) -> None:
    paths = (await stage.get("/openapi.json"))["paths"]
    for path, methods in paths.items():
        for method in methods:
            await stage.client.request(method, path)

    counted = {
        (method.lower(), route)
        for method, route, _ in (await scraped(stage))["hyplora_http_requests_total"]
    }

    assert {(method, path) for path, methods in paths.items() for method in methods} <= counted


async def test_uploads_are_counted_in_bytes(stage: Stage) -> None:
    rows = b'{"instruction": "Add 2 and 3.", "output": "5"}\n' * 100
    await stage.upload(rows)

    num_bytes = (await scraped(stage))["hyplora_http_request_bytes_total"]

    assert len(rows) < num_bytes["POST", "/v1/files"] < len(rows) + 500


async def test_problems_are_counted_by_code(tmp_path: Path) -> None:
    async with Stage(make_settings(tmp_path, requests_burst=2, requests_per_minute=1)) as stage:
        await stage.admit(SCRAPER, Scope.SCRAPE)
        for path in ("/v1/jobs/job-0", "/nowhere", "/v1/jobs?limit=0", "/v1/jobs", "/v1/jobs"):
            await stage.client.get(path)
        await stage.client.post("/v1/jobs", content=b" " * (1024**2 + 1))
        stage.client.headers["Authorization"] = f"Bearer {SCRAPER.text}"

        problems = (await scraped(stage))["hyplora_problems_total"]

    assert problems == {
        ("job-not-found",): 1,
        ("not-found",): 1,
        ("request-invalid",): 1,
        ("rate-limited",): 2,
        ("request-too-large",): 1,
    }


async def test_jobs_are_counted_by_state_and_kind(stage: Stage) -> None:
    first = await stage.started()
    await stage.submit()
    await stage.client.post("/v1/jobs", json=await stage.evaluate_spec())
    await stage.ask(first, "pause")

    samples = await scraped(stage)

    assert samples["hyplora_jobs"] == {
        ("finetune", "pausing"): 1,
        ("finetune", "queued"): 1,
        ("evaluate", "queued"): 1,
    }
    assert samples["hyplora_queue_depth"][()] == 2
    assert samples["hyplora_queue_oldest_seconds"][()] > 0
    assert samples["hyplora_live_drivers"][()] == 1
    assert samples["hyplora_max_live_drivers"][()] == stage.settings.max_live_drivers
    assert samples["hyplora_database_up"][()] == 1


async def test_a_job_that_ends_is_observed_once(stage: Stage) -> None:
    done = await stage.started()
    stage.succeed(done)
    waiting = await stage.submit()
    await stage.ask(waiting, "cancel")
    await stage.work(rounds=3)

    samples = await scraped(stage)

    assert samples["hyplora_jobs_ended_total"] == {
        ("finetune", "succeeded"): 1,
        ("finetune", "cancelled"): 1,
    }
    assert samples["hyplora_job_duration_seconds_count"] == {("finetune", "succeeded"): 1}
    assert samples["hyplora_job_wait_seconds_count"] == {("finetune",): 1}
    assert samples["hyplora_dispatcher_submissions_total"] == {("finetune",): 1}
    assert samples["hyplora_reconciler_round_seconds_count"][()] == 4


async def test_another_attempt_is_another_submission_and_no_other_wait(stage: Stage) -> None:
    job_id = await stage.started()
    stage.ray.end(f"{job_id}-a1", DriverState.FAILED)
    await stage.work(rounds=2)

    samples = await scraped(stage)

    assert samples["hyplora_dispatcher_submissions_total"] == {("finetune",): 2}
    assert samples["hyplora_job_wait_seconds_count"] == {("finetune",): 1}


async def test_a_service_that_starts_anew_does_not_count_what_ended_before(stage: Stage) -> None:
    stage.succeed(await stage.started())
    await stage.work()
    await stage.restart()
    await stage.work()

    samples = await scraped(stage)

    assert "hyplora_jobs_ended_total" not in samples
    assert samples["hyplora_jobs"] == {("finetune", "succeeded"): 1}


async def test_only_the_replica_that_acts_tells_of_its_lag(stage: Stage) -> None:
    idle = await scraped(stage)
    await stage.parts.control_loop.lease.acquire()
    await stage.started()
    await stage.submit()
    acting = await scraped(stage)
    stage.ray.is_away = True
    with pytest.raises(Exception, match="out of reach"):
        await stage.work()
    behind = await scraped(stage)

    assert idle["hyplora_lease_held"][()] == 0
    assert "hyplora_reconciler_lag_seconds" not in idle
    assert acting["hyplora_lease_held"][()] == 1
    assert acting["hyplora_reconciler_jobs_behind"][()] == 0
    assert behind["hyplora_reconciler_jobs_behind"][()] == 1
    name = "hyplora_reconciler_lag_seconds"
    assert behind[name][()] > acting[name][()]


async def test_lag_counts_from_the_moment_that_the_lease_is_taken(stage: Stage) -> None:
    loop = stage.parts.control_loop
    long_ago = loop._current_at = loop._current_at - 1000
    task = asyncio.create_task(loop.run())
    while not loop.is_acting:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert loop._current_at > long_ago + 500


async def test_followers_are_counted_while_they_follow(stage: Stage) -> None:
    job_id = await stage.started()
    events = stage.app.state.parts.events
    telemetry: Telemetry = stage.parts.telemetry

    with telemetry.following("events"):
        async with aclosing(events.follow(job_id, 0)) as following:
            await anext(following)
            assert (await scraped(stage))["hyplora_followers"] == {("events",): 1}
    await stage.ask(job_id, "cancel")
    stage.ray.end(f"{job_id}-a1", DriverState.STOPPED)
    await stage.work(rounds=2)
    await stage.client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    await stage.client.get(f"/v1/jobs/{job_id}/logs?follow=true")

    assert (await scraped(stage))["hyplora_followers"] == {("events",): 0, ("logs",): 0}


async def test_a_database_that_is_away_is_told_and_counted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.submit()
    assert (await scraped(stage))["hyplora_database_up"][()] == 1

    async def fail(_: object) -> Mapping[str, object]:
        raise DatabaseUnavailableError("the database does not answer")

    monkeypatch.setattr("service.census.JobCensus._count", fail)
    samples = await with_fresh_census(stage)

    assert samples["hyplora_database_up"][()] == 0
    assert "hyplora_jobs" not in samples


async def test_every_transaction_that_finds_no_database_is_an_outage() -> None:
    num_outages = 0

    def count() -> None:
        nonlocal num_outages
        num_outages += 1

    database = Database("sqlite+aiosqlite:////proc/none/jobs.db", on_outage=count)
    with pytest.raises(DatabaseUnavailableError):
        await database.ping()
    await database.close()

    assert num_outages == 1


def test_two_applications_in_one_process_count_apart() -> None:
    first, second = Telemetry("1"), Telemetry("2")

    first.database_outage()

    name = "hyplora_database_outages_total"
    assert first.registry.get_sample_value(name) == 1
    assert second.registry.get_sample_value(name) == 0
