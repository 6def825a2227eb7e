"""Searches as users run them: one REST call, trials side by side, a winner in the registry."""

import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from deploy.local import LocalStack
from service.answers import JobRead
from service.client import Client
from tests.end_to_end.conftest import upload, wait_for_status

pytestmark = pytest.mark.integration

LONGER = {"training": {"max_steps": 60, "eval_every_steps": 20}}
"""Trials that last for seconds."""

MakeSpec = Callable[..., dict[str, Any]]
RunToEnd = Callable[[dict[str, Any]], JobRead]


@pytest.fixture(scope="session")
def make_search(make_spec: MakeSpec) -> MakeSpec:
    """A search over curvature, rank and learning rate of the tiny model."""

    def make(name: str, **sections: Any) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "kind": "search",
            "training": {"max_steps": 8, "eval_every_steps": 4},
            "space": {
                "adapter.curvature": {"loguniform": [0.1, 10]},
                "adapter.r": {"choice": [4, 8, 16, 32]},
                "training.learning_rate": {"loguniform": [1e-4, 3e-2]},
            },
        }
        return make_spec(name, **(defaults | sections))

    return make


def trials_of(stack: LocalStack, job: JobRead) -> dict[str, Run]:
    """The runs of a search's trials, by the ids of the trials."""
    assert job.links.mlflow_run is not None
    run_id = job.links.mlflow_run.rpartition("/")[2]
    client = MlflowClient(tracking_uri=stack.mlflow_url)
    experiment_id = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    trials = [run for run in found if "hyplora.trial_id" in run.data.tags]
    by_id = {run.data.tags["hyplora.trial_id"]: run for run in trials}
    assert len(by_id) == len(trials), "no trial is doubled"
    return by_id


def states_of(trials: dict[str, Run]) -> list[str]:
    return [run.data.tags["hyplora.trial_state"] for _, run in sorted(trials.items())]


def objective_of(run: Run) -> float:
    return float(run.data.metrics["objective/eval/loss"])


def test_a_search_ends_with_a_registered_winner_that_beats_the_median_trial(
    stack: LocalStack, client: Client, make_search: MakeSpec, run_to_end: RunToEnd
) -> None:
    job = run_to_end(make_search("hunt", budget={"trials": 10}))
    assert job.status == "succeeded", job.failure
    trials = client.list_trials(job.id, sort="objective").data
    assert [trial.state for trial in trials] == ["completed"] * 10
    assert sorted(trial.id for trial in trials) == [f"trial-{n:04}" for n in range(1, 11)]
    assert all(0.1 <= float(str(trial.values["adapter.curvature"])) <= 10 for trial in trials)
    objectives = [trial.objectives["eval/loss"] for trial in trials]
    assert objectives == sorted(objectives)
    assert [trial.is_best for trial in trials] == [True] + [False] * 9
    assert job.search is not None
    assert (job.search.num_trials, job.search.num_ended) == (10, 10)
    assert job.search.best_trials == [trials[0].id]
    mlflow = MlflowClient(tracking_uri=stack.mlflow_url)
    assert job.model_version is not None
    version = mlflow.get_model_version("hunt", job.model_version.version)
    assert version.tags["hyplora.trial_id"] == trials[0].id
    assert objectives[0] < statistics.median(objectives)
    assert job.links.mlflow_run is not None
    run_id = job.links.mlflow_run.rpartition("/")[2]
    names = {Path(artifact.path).name for artifact in mlflow.list_artifacts(run_id, "search")}
    assert {"report.json", "report.md"} <= names
    for plot in ("parallel_coordinates", "curves_eval_loss", "importance"):
        assert {f"{plot}.png", f"{plot}.html"} <= names


def test_a_search_by_a_tasks_answers_registers_the_trial_that_answers_best(
    client: Client, make_search: MakeSpec, run_to_end: RunToEnd
) -> None:
    exam = upload(
        client, [{"instruction": "add", "input": f"{a} 7", "output": str(a + 7)} for a in range(6)]
    )
    spec = make_search(
        "examined",
        tasks=[{"name": "exam", "scorer": {"kind": "number"}, "data": exam.id, "max_rows": 4}],
        objectives=[{"metric": "nll/exam"}, {"metric": "accuracy/exam", "mode": "max"}],
        seeds_per_trial=2,
        budget={"trials": 3},
    )
    job = run_to_end(spec)
    assert job.status == "succeeded", job.failure
    trials = client.list_trials(job.id, sort="objective/nll/exam").data
    assert [trial.state for trial in trials] == ["completed"] * 3
    assert all(trial.objectives["accuracy/exam"] in {n / 8 for n in range(9)} for trial in trials)
    likelihoods = [trial.objectives["nll/exam"] for trial in trials]
    assert 0 < likelihoods[0] < likelihoods[1] < likelihoods[2]
    assert job.search is not None
    assert trials[0].id in job.search.best_trials
    assert job.model_version is not None


@pytest.mark.slow
def test_trials_that_fall_behind_are_stopped_and_those_that_fail_end_alone(
    stack: LocalStack, make_search: MakeSpec, run_to_end: RunToEnd
) -> None:
    spec = make_search(
        "race",
        space={
            "training.learning_rate": {"choice": [1e-2, 1e-3, 1e30]},
            "adapter.r": {"choice": [4, 8]},
        },
        algorithm={
            "name": "grid", "early_stopping": "asha", "reduction_factor": 2, "grace_steps": 4,
        },
        seeds_per_trial=2,
        register_best=2,
        refit=True,
        budget={"steps_per_trial": 6},
    )  # fmt: skip
    job = run_to_end(spec)
    assert job.status == "succeeded", job.failure
    trials = trials_of(stack, job)
    states = states_of(trials)
    assert states[4:] == ["failed", "failed"]
    assert "completed" in states[:2]
    assert "stopped" in states
    for run in trials.values():
        state, reason = (run.data.tags.get(f"hyplora.trial_{tag}") for tag in ("state", "reason"))
        if state == "stopped":
            assert reason.startswith("stopped by asha after step 4 at eval/loss")
        elif state == "failed":
            assert reason.startswith("loss-not-finite: at step")
        else:
            metrics = run.data.metrics
            seeds = [metrics["eval/loss"], metrics["seed_1/eval/loss"]]
            assert objective_of(run) == pytest.approx(statistics.fmean(seeds))
            error = statistics.stdev(seeds) / 2**0.5
            assert metrics["objective_error/eval/loss"] == pytest.approx(error)
            assert metrics["progress/total_steps"] == 6
    client = MlflowClient(tracking_uri=stack.mlflow_url)
    assert job.model_version is not None
    refitted = client.get_model_version("race", job.model_version.version)
    assert refitted.tags["search_place"] == "refit"
    assert refitted.tags["steps"] == "8", "a refit has no bound on steps but its training's own"


@pytest.mark.slow
def test_a_search_goes_on_after_its_driver_is_killed_and_no_trial_is_lost_or_doubled(
    stack: LocalStack, client: Client, make_search: MakeSpec
) -> None:
    job = client.submit_job(make_search("bereft", budget={"trials": 20}, **LONGER))
    wait_for_trials(client, job.id, number=3)
    driver_of(stack).send_signal(signal.SIGKILL)
    job = wait_for_status(client, job.id, "succeeded")
    assert job.attempt == 2
    trials = trials_of(stack, job)
    reasons = [run.data.tags.get("hyplora.trial_reason") for run in trials.values()]
    assert states_of(trials) == ["completed"] * 20, reasons
    assert "going on with the trials of an earlier attempt" in "".join(client.logs(job.id))


@pytest.mark.slow
def test_a_cancelled_trial_ends_alone_and_a_cancelled_search_gives_everything_back(
    stack: LocalStack, client: Client, make_search: MakeSpec
) -> None:
    spec = make_search("regretted", budget={"trials": 4})
    spec["training"] |= {"max_steps": 100_000, "num_epochs": 100_000}
    job = client.submit_job(spec)
    wait_for_trials(client, job.id, number=2)
    first = client.list_trials(job.id).data[0]
    assert client.cancel_trial(job.id, first.id).cancel_requested
    wait_until(lambda: client.get_trial(job.id, first.id).state == "cancelled")
    assert client.get_job(job.id).status == "running"
    client.cancel_job(job.id)
    wait_for_status(client, job.id, "cancelled")
    wait_until(lambda: not processes_named(stack, "run_trial"))
    wait_until(lambda: not placement_groups(stack))


@pytest.mark.slow
def test_a_paused_search_goes_on_where_it_was(
    stack: LocalStack, client: Client, make_search: MakeSpec
) -> None:
    job = client.submit_job(make_search("interrupted", budget={"trials": 20}, **LONGER))
    wait_for_trials(client, job.id, number=3)
    client.pause_job(job.id)
    paused = wait_for_status(client, job.id, "paused")
    assert not processes_named(stack, "run_trial")
    client.resume_job(paused.id)
    job = wait_for_status(client, job.id, "succeeded")
    assert states_of(trials_of(stack, job)) == ["completed"] * 20


@pytest.mark.slow
def test_a_search_makes_room_for_another_before_it_has_ended(
    stack: LocalStack, client: Client, make_search: MakeSpec
) -> None:
    spans = []
    jobs = [
        client.submit_job(make_search(name, budget={"trials": 30}, **LONGER))
        for name in ("romulus", "remus")
    ]
    for job in jobs:
        ended = wait_for_status(client, job.id, "succeeded")
        trials = trials_of(stack, ended)
        assert states_of(trials) == ["completed"] * 30
        infos = [run.info for run in trials.values()]
        spans.append((min(i.start_time for i in infos), max(i.end_time for i in infos)))
    (began, ended_at), (other_began, other_ended) = sorted(spans)
    shared = min(ended_at, other_ended) - other_began
    assert shared > 0.3 * (ended_at - began)


@pytest.mark.slow
def test_trials_of_two_workers_train_as_one_worker_does(
    stack: LocalStack, make_search: MakeSpec, run_to_end: RunToEnd
) -> None:
    grid = {
        "space": {"adapter.r": {"choice": [4, 8]}},
        "algorithm": {"name": "grid"},
    }
    together = run_to_end(make_search("pairs", resources={"num_workers": 2}, **grid))
    alone = run_to_end(make_search("singles", **grid))
    for job in (together, alone):
        assert job.status == "succeeded", job.failure
    pairs = zip(
        sorted(trials_of(stack, together).items()),
        sorted(trials_of(stack, alone).items()),
        strict=True,
    )
    for (name, nested), (same_name, warm) in pairs:
        assert name == same_name
        assert objective_of(nested) == pytest.approx(objective_of(warm), rel=1e-3)


@pytest.mark.slow
def test_a_population_goes_on_from_its_best_members(
    stack: LocalStack, make_search: MakeSpec, run_to_end: RunToEnd
) -> None:
    spec = make_search(
        "tribe",
        space={"training.learning_rate": {"loguniform": [1e-5, 3e-2]}},
        algorithm={"name": "random", "population_interval": 4},
        budget={"trials": 4},
        max_concurrent_trials=2,
    )
    spec["training"] |= {"max_steps": 40}
    job = run_to_end(spec)
    assert job.status == "succeeded", job.failure
    assert states_of(trials_of(stack, job)) == ["completed"] * 4


def test_more_trials_at_a_time_than_the_cluster_holds_are_refused_before_any_begins(
    stack: LocalStack, make_search: MakeSpec, run_to_end: RunToEnd
) -> None:
    job = run_to_end(make_search("crowd", max_concurrent_trials=900))
    assert job.status == "failed"
    assert job.failure is not None
    assert job.failure.code == "resources-unavailable"
    assert "max_concurrent_trials: 900 trials" in job.failure.message
    assert trials_of(stack, job) == {}


def wait_for_trials(client: Client, job_id: str, number: int) -> None:
    """Wait until so many trials of a search have begun."""
    wait_for_status(client, job_id, "running")
    wait_until(lambda: len(client.list_trials(job_id).data) >= number)


def wait_until(holds: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def placement_groups(stack: LocalStack) -> list[dict[str, Any]]:
    """Reservations on the Ray cluster that are held or waited for."""
    token = (stack.home / "ray-token").read_text().strip()
    answer = httpx.get(
        f"{stack.ray_dashboard_url}/api/v0/placement_groups",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    groups = answer.raise_for_status().json()["data"]["result"]["result"]
    return [group for group in groups if group["state"] != "REMOVED"]


def driver_of(stack: LocalStack) -> psutil.Process:
    (driver,) = [
        process
        for process in processes_named(stack, "jobs.search")
        if process.cmdline()[-2:] == ["-m", "jobs.search"] and "python" in process.cmdline()[0]
    ]
    return driver


def processes_named(stack: LocalStack, word: str) -> list[psutil.Process]:
    """Processes under the stack's Ray head with a word in their command line."""
    found = []
    for process in psutil.Process(stack.children["ray"].pid).children(recursive=True):
        try:
            if word in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
