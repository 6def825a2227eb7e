"""A service over real HTTP that has one of everything, for requests that nobody wrote by hand."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import uvicorn

from jobs.tickets import DRY_RUN_MARK, RunTag
from service.boundaries import DriverRequest, DriverState
from tests.unit.service.fakes import FakeRay
from tests.unit.service.stage import ROWS, Stage, make_settings

_PATIENCE_S = 60.0
_FORETOLD = {
    "num_tokens": 100,
    "longest_row": 10,
    "num_parameters": 1000,
    "placement": {"possible": True, "device": "cpu"},
}


@dataclass(frozen=True)
class FuzzedService:
    """Where the service answers, and what it has."""

    url: str
    ids: dict[str, list[str]]
    """Values by the path parameters that take them."""


class HastyRay(FakeRay):
    """A cluster whose drivers end at once, so that nothing that follows a job waits for ever."""

    async def submit(self, request: DriverRequest) -> None:
        await super().submit(request)
        if request.submission_id.startswith("dryrun-"):
            answer = json.dumps({"result": _FORETOLD})
            self.logs[request.submission_id] = f"\n{DRY_RUN_MARK}{answer}\n"
            self.end(request.submission_id, DriverState.SUCCEEDED)
        else:
            self.end(request.submission_id, DriverState.FAILED, "exit code 1")


@contextmanager
def fuzzed_service(home: Path) -> Iterator[FuzzedService]:
    """Serve from a thread, so that another process can send requests."""
    started: Queue[FuzzedService | BaseException] = Queue()
    is_over = threading.Event()

    async def serve() -> None:
        async with _served(home) as service:
            started.put(service)
            await asyncio.to_thread(is_over.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    try:
        service = started.get(timeout=_PATIENCE_S)
        assert isinstance(service, FuzzedService), service
        yield service
    finally:
        is_over.set()
        thread.join(_PATIENCE_S)
    assert not thread.is_alive()


@asynccontextmanager
async def _served(home: Path) -> AsyncIterator[FuzzedService]:
    often = 10**9
    settings = make_settings(
        home,
        poll_interval_s=0.1,
        requests_per_minute=often,
        requests_burst=often,
        failures_per_minute=often,
        max_live_drivers=1000,
        max_dry_runs=1000,
    )
    async with Stage(settings) as stage:
        ids = await _furnish(stage)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(
                uvicorn.Config(stage.app, log_level="error", timeout_graceful_shutdown=5)
            )
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield FuzzedService(f"http://127.0.0.1:{listener.getsockname()[1]}", ids)
            finally:
                server.should_exit = True
                await serving


async def _furnish(stage: Stage) -> dict[str, list[str]]:
    """Jobs that have ended in one way or another, a search with trials, files, models and keys."""
    done = await stage.started()
    stage.succeed(done)
    version = stage.registry.register(
        "sums", alias="champion", run_id=stage.run_id(done), tags={RunTag.JOB_ID: done}
    )
    search = await stage.begin(await stage.search_spec())
    trial = stage.mlflow.add_child(
        stage.run_id(search), {"eval/loss": 1.0}, TRIAL_ID="trial-0000", TRIAL_STATE="completed"
    )
    stage.mlflow.tag(trial, TRIAL_VALUES='{"adapter.r": 8}')
    evaluation = await stage.begin(await stage.evaluate_spec())
    for name, content in {"report.json": b"{}", "report.md": b"# Report\n"}.items():
        stage.mlflow.files[stage.run_id(evaluation), f"evaluate/{name}"] = content
    stage.sum_up(evaluation, "one task")
    await stage.work()
    await stage.ask(search, "cancel")
    stage.ray.end(f"{search}-a1", DriverState.STOPPED)
    await stage.work()
    key = await stage.client.post("/v1/keys", json={"name": "spare"})
    stage.ray.__class__ = HastyRay
    return {
        "job_id": [done, search, evaluation],
        "fine_tuning_job_id": [done],
        "file_id": [await stage.upload(ROWS * number) for number in range(1, 4)],
        "file_path": ["evaluate/report.json", "evaluate"],
        "model_name": ["sums"],
        "model": [f"sums:{version}"],
        "version": [str(version)],
        "alias": ["champion"],
        "trial_id": ["trial-0000"],
        "key_id": [key.json()["id"]],
        "name": ["report.json", "report.md"],
    }
