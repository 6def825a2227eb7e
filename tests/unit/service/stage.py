"""A control plane on a real database, between a fake Ray and a fake MLflow, driven by tests."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import APIRouter
from sqlalchemy import delete

from service.app import create_app
from service.boundaries import DriverState, RunReport, RunStatus
from service.callers import DEFAULT_PROJECT, Scope
from service.dependencies import Parts
from service.key_tokens import KeyToken, hash_secret
from service.settings import ServiceSettings
from service.tables import ApiKey, LeaseRow, utc_now
from tests.unit.service.fake_registry import FakeRegistry
from tests.unit.service.fakes import FakeMlflow, FakeRay, Fault

KEY = KeyToken("key-0123456789abcdef", "A" * 43)
TOKEN = KEY.text
KEY_HASH = hash_secret(KEY.secret, cost=2)
_BUILT: dict[str, APIRouter] = {}
ROW = {"instruction": "Add 2 and 3.", "output": "5"}
ROWS = (json.dumps(ROW) + "\n").encode()


def make_settings(home: Path, **changes: Any) -> ServiceSettings:
    """Settings of a service that lives in one folder, and never waits long."""
    return ServiceSettings(**{"home": home, "poll_interval_s": 0.001, **changes})


class Stage:
    """One service process after another over the same database and the same outside world."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.fault = Fault()
        self.ray = FakeRay(self.fault)
        self.mlflow = FakeMlflow(self.fault)
        self.registry = FakeRegistry()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin a service process; its control loop turns only by `work`."""
        self.app = create_app(
            self.settings, drivers=self.ray, runs=self.mlflow, registry=self.registry
        )
        # FastAPI takes half a second to build the routes on first use; they are those of any app.
        self.app.router.routes[:] = _BUILT.setdefault("routes", self.app.router).routes
        self.parts: Parts = self.app.state.parts
        self.parts.contents.prepare()
        await self.parts.database.upgrade()
        await self.admit(KEY, Scope.ADMIN)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://service",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )

    async def admit(
        self, token: KeyToken, scope: Scope, project: str = DEFAULT_PROJECT, **fields: Any
    ) -> None:
        """Put a key into the database, unless it is there; its hash is a cheap one."""
        hashed = KEY_HASH if token == KEY else hash_secret(token.secret, cost=2)
        key = ApiKey(
            id=token.key_id,
            name="tests",
            project=project,
            scopes=[scope],
            hash=hashed,
            created_at=utc_now(),
            **fields,
        )
        async with self.parts.database.writing() as session:
            if await session.get(ApiKey, token.key_id) is None:
                session.add(key)

    async def stop(self) -> None:
        """End the service process."""
        await self.client.aclose()
        await self.parts.validation.stop()
        await self.parts.database.close()

    async def restart(self) -> None:
        """End the process and begin another."""
        await self.stop()
        await self.start()

    async def work(self, rounds: int = 1) -> None:
        """Let the control loop turn."""
        await self.lead()
        for _ in range(rounds):
            await self.parts.control_loop.work_once()

    async def lead(self) -> None:
        """Take over, as if the lease of whoever led had run out."""
        async with self.parts.database.writing() as session:
            await session.execute(delete(LeaseRow))
        assert await self.parts.control_loop.lease.acquire()

    async def upload(self, content: bytes = ROWS) -> str:
        """Upload a data set and return its id."""
        response = await self.client.post("/v1/files", files={"file": ("rows.jsonl", content)})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    async def spec(self, **changes: Any) -> dict[str, Any]:
        """A valid job specification over an uploaded file."""
        train = changes.pop("train", None) or await self.upload()
        spec = {"kind": "finetune", "name": "sums", "base_model": "tiny", "data": {"train": train}}
        return spec | changes

    async def search_spec(self, **changes: Any) -> dict[str, Any]:
        """A valid search of curvature and rank."""
        spec = await self.spec(kind="search")
        spec["data"]["validation_rows"] = 1
        spec["space"] = {
            "adapter.curvature": {"loguniform": [0.1, 10]},
            "adapter.r": {"choice": [4, 8]},
        }
        return spec | changes

    async def evaluate_spec(self, **changes: Any) -> dict[str, Any]:
        """A valid evaluation on an uploaded file."""
        task = {"benchmark": "gsm8k", "data": await self.upload()}
        spec = {"kind": "evaluate", "name": "exam", "base_model": "tiny", "tasks": [task]}
        return spec | changes

    async def analyze_spec(self, **changes: Any) -> dict[str, Any]:
        """A valid analysis of an uploaded file."""
        data = await self.upload()
        spec = {"kind": "analyze", "name": "shape", "base_model": "tiny", "data": data}
        return spec | changes

    async def compare_spec(self, **changes: Any) -> dict[str, Any]:
        """A valid comparison of two methods."""
        spec = await self.evaluate_spec(kind="compare")
        train = await self.upload(ROWS + ROWS)
        spec["data"] = {"train": train, "validation_rows": 1}
        spec["methods"] = ["lora", "hyplora"]
        return spec | changes

    async def begin(self, spec: Mapping[str, Any]) -> str:
        """Submit a job of any kind, see it onto the cluster and return its id."""
        response = await self.client.post("/v1/jobs", json=spec)
        assert response.status_code == 201, response.text
        await self.work()
        return str(response.json()["id"])

    async def submit(self, **changes: Any) -> str:
        """Submit a job and return its id."""
        response = await self.client.post("/v1/jobs", json=await self.spec(**changes))
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job as the API answers it."""
        return await self.get(f"/v1/jobs/{job_id}")

    async def events(self, job_id: str) -> list[dict[str, Any]]:
        """The job's history."""
        answer = await self.get(f"/v1/jobs/{job_id}/events?limit=1000")
        return list(answer["data"])

    async def statuses(self, job_id: str) -> list[str]:
        """The statuses that the job went through."""
        events = await self.events(job_id)
        return [event["data"]["status"] for event in events if event["type"] == "status"]

    async def messages(self, job_id: str) -> list[dict[str, Any]]:
        """What the job's messages say."""
        events = await self.events(job_id)
        return [event["data"] for event in events if event["type"] == "message"]

    async def get(self, path: str) -> dict[str, Any]:
        """A JSON answer."""
        response = await self.client.get(path)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def started(self, **changes: Any) -> str:
        """Submit a job, see it onto the cluster and return its id."""
        job_id = await self.submit(**changes)
        await self.work()
        assert (await self.job(job_id))["status"] == "running"
        return job_id

    async def ask(self, job_id: str, verb: str) -> dict[str, Any]:
        """Pause, resume or cancel a job and return what the API answers."""
        response = await self.client.post(f"/v1/jobs/{job_id}/{verb}")
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def pause(self, job_id: str, attempt: int = 1) -> None:
        """Pause a running job and let its driver end."""
        assert (await self.ask(job_id, "pause"))["status"] == "pausing"
        await self.work()
        self.ray.end(f"{job_id}-a{attempt}", DriverState.STOPPED)
        await self.work()
        assert (await self.job(job_id))["status"] == "paused"

    def run_id(self, job_id: str) -> str:
        """The one run of a job."""
        (run,) = [run for run in self.mlflow.own_runs() if run.tags["hyplora.job_id"] == job_id]
        return run.ref.run_id

    def succeed(self, job_id: str, attempt: int = 1) -> None:
        """Let the driver register its adapter and end well."""
        run_id = self.run_id(job_id)
        self.mlflow.tag(run_id, MODEL_NAME="sums", MODEL_VERSION="3")
        self.mlflow.runs[run_id] = _closed(self.mlflow.runs[run_id], RunStatus.FINISHED)
        self.ray.end(f"{job_id}-a{attempt}", DriverState.SUCCEEDED)

    def sum_up(self, job_id: str, summary: str, attempt: int = 1) -> None:
        """Let the driver say what it found and end well."""
        run_id = self.run_id(job_id)
        self.mlflow.tag(run_id, SUMMARY=summary)
        self.mlflow.runs[run_id] = _closed(self.mlflow.runs[run_id], RunStatus.FINISHED)
        self.ray.end(f"{job_id}-a{attempt}", DriverState.SUCCEEDED)

    def fail(self, job_id: str, code: str, message: str, attempt: int = 1) -> None:
        """Let the driver record a failure and end."""
        run_id = self.run_id(job_id)
        self.mlflow.tag(run_id, FAILURE_CODE=code, FAILURE_MESSAGE=message)
        self.mlflow.runs[run_id] = _closed(self.mlflow.runs[run_id], RunStatus.FAILED)
        self.ray.end(f"{job_id}-a{attempt}", DriverState.FAILED, "exit code 1")


def _closed(run: RunReport, status: RunStatus) -> RunReport:
    return replace(run, status=status)


def field_errors(problem: Mapping[str, Any]) -> dict[str, str]:
    """The messages of a problem's errors by field."""
    return {error["field"]: error["message"] for error in problem["errors"]}
