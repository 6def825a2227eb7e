"""Ray and MLflow as the control plane sees them, in memory: the two process boundaries."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from jobs.tickets import RunTag
from service.boundaries import (
    NO_TAGS,
    Artifact,
    DriverReport,
    DriverRequest,
    DriverState,
    History,
    RunRef,
    RunReport,
    RunStatus,
)
from service.errors import (
    DriverNotStartedError,
    MlflowUnavailableError,
    RayUnavailableError,
    RefusedError,
)


class Killed(BaseException):
    """The service's process died here; nothing in it can catch that."""


class Fault:
    """Kills the service at one of its calls to the outside, before or after it took effect."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.kill_at: int | None = None
        self.takes_effect = False

    def strikes(self, takes_effect: bool) -> None:
        """Count a call on its way in, and die if it is the one."""
        if not takes_effect:
            self.num_calls += 1
        if self.num_calls == self.kill_at and takes_effect == self.takes_effect:
            self.kill_at = None
            raise Killed


class FakeRay:
    """A cluster whose drivers do only what a test makes them do."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.is_away = False
        self.refuses = False
        self.fails_to_start = ""
        self.drivers: dict[str, DriverReport] = {}
        self.requests: list[DriverRequest] = []
        self.stops: list[str] = []
        self.logs: dict[str, str] = {}

    def end(self, submission_id: str, state: DriverState, message: str = "") -> None:
        """Let a driver end."""
        self.drivers[submission_id] = DriverReport(state, message)

    async def ping(self) -> None:
        await self._arrive()

    async def submit(self, request: DriverRequest) -> None:
        await self._arrive()
        if self.refuses:
            raise RefusedError("Ray answered 400: no such runtime environment")
        if self.fails_to_start == request.submission_id:
            raise DriverNotStartedError("Ray answered 500: Traceback")
        if request.submission_id not in self.drivers:
            self.requests.append(request)
            self.drivers[request.submission_id] = DriverReport(DriverState.RUNNING)
        self._leave()

    async def report(self, submission_id: str) -> DriverReport:
        await self._arrive()
        return self.drivers.get(submission_id, DriverReport(DriverState.UNKNOWN))

    async def stop(self, submission_id: str) -> None:
        await self._arrive()
        self.stops.append(submission_id)
        self._leave()

    async def log(self, submission_id: str) -> str | None:
        await self._arrive()
        return self.logs.get(submission_id)

    async def follow_log(self, submission_id: str) -> AsyncGenerator[str]:
        await self._arrive()
        position = 0
        while True:
            text = self.logs.get(submission_id, "")[position:]
            if text:
                yield text
                position += len(text)
            elif not self.drivers[submission_id].state.is_live:
                return
            await asyncio.sleep(0)

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise RayUnavailableError("Ray is out of reach")
        self.fault.strikes(takes_effect=False)

    def _leave(self) -> None:
        self.fault.strikes(takes_effect=True)


_PARENT = "mlflow.parentRunId"


class FakeMlflow:
    """A server that holds runs; drivers write to them through `tag` and `measure`."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.is_away = False
        self.refuses = False
        self.runs: dict[str, RunReport] = {}
        self._numbers = count()
        self.parameters: dict[str, Mapping[str, str]] = {}
        self.documents: dict[str, Mapping[str, object]] = {}
        self.logs: dict[tuple[str, int], str] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.points: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self.most_points: int | None = None

    def tag(self, run_id: str, **tags: str) -> None:
        """Set tags by the names of `RunTag`, as a driver does."""
        run = self.runs[run_id]
        named = {str(RunTag[name]): value for name, value in tags.items()}
        self.runs[run_id] = replace(run, tags={**run.tags, **named})

    def lose_worker(self, run_id: str, number: str, reason: str) -> None:
        """Note why a worker was lost, as a driver does."""
        run = self.runs[run_id]
        self.runs[run_id] = replace(run, tags={**run.tags, f"{RunTag.RESTART}.{number}": reason})

    def measure(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Report metrics, as a worker does."""
        run = self.runs[run_id]
        self.runs[run_id] = replace(run, metrics={**run.metrics, **metrics})

    def log(self, run_id: str, key: str, points: Iterable[tuple[int, float]]) -> None:
        """Log the steps and values of a metric, as a worker does; each a second after the last."""
        logged = self.points.setdefault((run_id, key), [])
        logged += points
        self.measure(run_id, {key: logged[-1][1]})

    def add_child(self, parent_id: str, metrics: Mapping[str, float], **tags: str) -> str:
        """Open a run below another, as the driver of a search does; a minute after the last one."""
        number = next(self._numbers)
        ref = replace(self.runs[parent_id].ref, run_id=f"run{number}")
        job_id = self.runs[parent_id].tags[RunTag.JOB_ID]
        own = {str(RunTag.JOB_ID): job_id, _PARENT: parent_id}
        began = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
        run = RunReport(ref, RunStatus.RUNNING, own, dict(metrics), started_at=began)
        self.runs[ref.run_id] = run
        self.tag(ref.run_id, **tags)
        return ref.run_id

    def own_runs(self) -> list[RunReport]:
        """The runs of jobs, without those below them."""
        return [run for run in self.runs.values() if _PARENT not in run.tags]

    def children_of(self, parent_id: str) -> list[RunReport]:
        """The runs below a run."""
        return [run for run in self.runs.values() if run.tags.get(_PARENT) == parent_id]

    async def ping(self) -> None:
        await self._arrive()

    async def read(self, run_id: str) -> RunReport | None:
        await self._arrive()
        return self.runs.get(run_id)

    async def find(self, job_id: str) -> RunReport | None:
        await self._arrive()
        return next((run for run in self.own_runs() if run.tags[RunTag.JOB_ID] == job_id), None)

    async def discard_doubles(self, job_id: str, run_id: str) -> None:
        await self._arrive()
        for run in self.own_runs():
            if run.tags[RunTag.JOB_ID] == job_id and run.ref.run_id != run_id:
                del self.runs[run.ref.run_id]
        self._leave()

    async def children(self, parent: RunRef) -> Sequence[RunReport]:
        await self._arrive()
        return self.children_of(parent.run_id)

    async def create(
        self, job_id: str, name: str, source: str, tags: Mapping[str, str] = NO_TAGS
    ) -> RunRef:
        await self._arrive()
        if self.refuses:
            raise RefusedError("MLflow refused: the name of the run is too long")
        ref = RunRef(f"run{next(self._numbers)}", "7")
        own = {str(RunTag.JOB_ID): job_id, "name": name, "source": source}
        self.runs[ref.run_id] = RunReport(ref, RunStatus.RUNNING, {**tags, **own})
        self._leave()
        return ref

    async def describe(
        self, run_id: str, parameters: Mapping[str, str], document: Mapping[str, object]
    ) -> None:
        await self._arrive()
        self.parameters[run_id] = parameters
        self.documents[run_id] = document
        self._leave()

    async def set_tag(self, run_id: str, tag: str, value: str) -> None:
        await self._arrive()
        run = self.runs[run_id]
        self.runs[run_id] = replace(run, tags={**run.tags, tag: value})
        self._leave()

    async def set_status(self, run_id: str, status: RunStatus) -> None:
        await self.end(run_id, status)

    async def end(self, run_id: str, status: RunStatus) -> None:
        await self._arrive()
        self.runs[run_id] = replace(self.runs[run_id], status=status)
        self._leave()

    async def save_log(self, run_id: str, attempt: int, text: str) -> None:
        await self._arrive()
        self.logs[run_id, attempt] = text
        self._leave()

    async def read_log(self, run_id: str, attempt: int) -> str | None:
        await self._arrive()
        return self.logs.get((run_id, attempt))

    async def history(self, run_id: str, key: str, most_points: int) -> History:
        await self._arrive()
        self.most_points = most_points
        points = self.points.get((run_id, key), [])
        is_sampled = len(points) > most_points
        kept = list(enumerate(points))[:: 10 if is_sampled else 1]
        return History(
            steps=[step for _, (step, _) in kept],
            values=[value for _, (_, value) in kept],
            times_ms=[1000 * number for number, _ in kept],
            is_sampled=is_sampled,
        )

    async def values_at(self, run_id: str, key: str, steps: Collection[int]) -> Mapping[int, float]:
        await self._arrive()
        return {step: value for step, value in self.points.get((run_id, key), []) if step in steps}

    async def artifacts(self, run_id: str, folder: str) -> Sequence[Artifact]:
        await self._arrive()
        if self.refuses:
            raise RefusedError("MLflow refused: no such run")
        return [
            Artifact(path, len(content))
            for (owner, path), content in self.files.items()
            if owner == run_id and path.rpartition("/")[0] == folder
        ]

    async def entries(self, run_id: str, folder: str) -> Sequence[Artifact]:
        await self._arrive()
        if self.refuses:
            raise RefusedError("MLflow refused: no such run")
        prefix = f"{folder}/" if folder else ""
        found: dict[str, Artifact] = {}
        for (owner, path), content in self.files.items():
            if owner == run_id and path.startswith(prefix):
                name, slash, _ = path.removeprefix(prefix).partition("/")
                entry = prefix + name
                found[entry] = Artifact(entry, 0 if slash else len(content), bool(slash))
        return list(found.values())

    async def download(self, run_id: str, path: str, folder: Path) -> Path:
        await self._arrive()
        target = folder / path.rpartition("/")[2]
        target.write_bytes(self.files[run_id, path])
        return target

    async def read_artifact(self, run_id: str, path: str) -> bytes:
        await self._arrive()
        return self.files[run_id, path]

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise MlflowUnavailableError("MLflow is out of reach")
        self.fault.strikes(takes_effect=False)

    def _leave(self) -> None:
        self.fault.strikes(takes_effect=True)
