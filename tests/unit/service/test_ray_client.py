"""`RayDrivers` against a server that answers as Ray's Jobs API does."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from service.boundaries import DriverRequest, DriverState
from service.errors import DriverNotStartedError, RayUnavailableError, RefusedError
from service.ray_client import RayDrivers

# Ray 2.60 opens its web socket in a way that aiohttp 3.14 finds outdated.
pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")

REQUEST = DriverRequest(
    submission_id="job-1-a1",
    entrypoint="python -m jobs.finetune",
    environment={"KEY": "value"},
    metadata={"job_id": "job-1"},
)


class JobsApi:
    """The part of Ray's HTTP interface that the control plane uses."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.submitted: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.status_of_everything: int | None = None
        self.status_of_submit: int | None = None
        self.token: str | None = None

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.status_of_everything:
            return web.Response(status=self.status_of_everything, text="Traceback: trouble")
        response: web.StreamResponse = await handler(request)
        return response

    async def version(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"}
        )

    async def submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        submission_id = body["submission_id"]
        if self.status_of_submit:
            return web.Response(status=self.status_of_submit, text="Traceback: ValueError")
        if submission_id in self.jobs:
            return web.Response(status=500, text=f"ValueError: {submission_id} already exists")
        self.submitted.append(body)
        self.jobs[submission_id] = {
            "type": "SUBMISSION",
            "status": "PENDING",
            "entrypoint": body["entrypoint"],
            "message": "queued\nTraceback of a kilometre",
        }
        return web.json_response({"job_id": submission_id, "submission_id": submission_id})

    def _found(self, request: web.Request) -> dict[str, Any]:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            raise web.HTTPNotFound(text="Job does not exist")
        return job

    async def info(self, request: web.Request) -> web.Response:
        return web.json_response(self._found(request))

    async def stop(self, request: web.Request) -> web.Response:
        self._found(request)
        self.stopped.append(request.match_info["id"])
        return web.json_response({"stopped": True})

    async def logs(self, request: web.Request) -> web.Response:
        if "log" not in self._found(request):
            return web.Response(status=500, text="Traceback: the agent is gone")
        return web.json_response({"logs": self._found(request)["log"]})

    async def tail(self, request: web.Request) -> web.StreamResponse:
        job = self._found(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for line in job["log"].splitlines(keepends=True):
            await socket.send_str(line)
        await socket.close()
        return socket


@pytest.fixture
def api() -> JobsApi:
    return JobsApi()


@pytest.fixture
async def drivers(api: JobsApi) -> AsyncIterator[RayDrivers]:
    app = web.Application(middlewares=[api.guard])
    app.router.add_get("/api/version", api.version)
    app.router.add_post("/api/jobs/", api.submit)
    app.router.add_get("/api/jobs/{id}", api.info)
    app.router.add_post("/api/jobs/{id}/stop", api.stop)
    app.router.add_get("/api/jobs/{id}/logs", api.logs)
    app.router.add_get("/api/jobs/{id}/logs/tail", api.tail)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield RayDrivers(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


async def test_a_driver_is_submitted_with_its_environment(
    api: JobsApi, drivers: RayDrivers
) -> None:
    await drivers.submit(REQUEST)

    (body,) = api.submitted
    assert body["submission_id"] == "job-1-a1"
    assert body["entrypoint"] == "python -m jobs.finetune"
    assert body["runtime_env"]["env_vars"] == {"KEY": "value"}
    assert body["metadata"] == {"job_id": "job-1"}


async def test_a_submission_id_that_is_taken_counts_as_submitted(
    api: JobsApi, drivers: RayDrivers
) -> None:
    await drivers.submit(REQUEST)
    await drivers.submit(REQUEST)

    assert len(api.submitted) == 1


async def test_a_submission_that_ray_finds_wrong_is_refused_for_good(
    api: JobsApi, drivers: RayDrivers
) -> None:
    api.status_of_submit = 400

    with pytest.raises(RefusedError, match="Ray answered 400"):
        await drivers.submit(REQUEST)


async def test_a_submission_that_ray_fails_at_is_told_from_a_ray_that_is_away(
    api: JobsApi, drivers: RayDrivers
) -> None:
    api.status_of_submit = 500

    with pytest.raises(DriverNotStartedError, match="Ray answered 500"):
        await drivers.submit(REQUEST)

    api.status_of_everything = 500
    with pytest.raises(RayUnavailableError):
        await drivers.submit(REQUEST)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"])
async def test_a_driver_is_reported_as_ray_sees_it(
    api: JobsApi, drivers: RayDrivers, state: str
) -> None:
    await drivers.submit(REQUEST)
    api.jobs["job-1-a1"]["status"] = state

    report = await drivers.report("job-1-a1")

    assert report.state is DriverState(state)
    assert report.message == "queued"


async def test_a_driver_that_ray_does_not_have_is_unknown(drivers: RayDrivers) -> None:
    assert (await drivers.report("job-1-a1")).state is DriverState.UNKNOWN


async def test_a_driver_is_stopped_if_it_is_there(api: JobsApi, drivers: RayDrivers) -> None:
    await drivers.stop("job-1-a1")
    await drivers.submit(REQUEST)
    await drivers.stop("job-1-a1")

    assert api.stopped == ["job-1-a1"]


async def test_a_log_is_read_or_missing(api: JobsApi, drivers: RayDrivers) -> None:
    assert await drivers.log("job-1-a1") is None
    await drivers.submit(REQUEST)
    assert await drivers.log("job-1-a1") is None

    api.jobs["job-1-a1"]["log"] = "one\ntwo\n"

    assert await drivers.log("job-1-a1") == "one\ntwo\n"


async def test_a_log_is_followed_to_its_end(api: JobsApi, drivers: RayDrivers) -> None:
    await drivers.submit(REQUEST)
    api.jobs["job-1-a1"]["log"] = "one\ntwo\n"

    assert [text async for text in drivers.follow_log("job-1-a1")] == ["one\n", "two\n"]


async def test_following_the_log_of_an_unknown_driver_can_be_repeated(drivers: RayDrivers) -> None:
    with pytest.raises(RayUnavailableError):
        await anext(drivers.follow_log("job-1-a1"))


@pytest.mark.parametrize("status", [401, 403, 404, 500, 502, 503])
async def test_a_cluster_in_trouble_is_unavailable(
    api: JobsApi, drivers: RayDrivers, status: int
) -> None:
    api.status_of_everything = status

    with pytest.raises(RayUnavailableError, match="out of reach"):
        await drivers.ping()


async def test_a_cluster_that_comes_back_is_used_again(api: JobsApi, drivers: RayDrivers) -> None:
    await drivers.ping()
    api.status_of_everything = 401
    with pytest.raises(RayUnavailableError):
        await drivers.report("job-1-a1")
    api.status_of_everything = None

    await drivers.ping()


async def test_a_cluster_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(RayUnavailableError, match="Connection refused"):
        await RayDrivers("http://127.0.0.1:9").ping()


async def test_addresses_in_the_environment_do_not_override_the_setting(
    api: JobsApi, drivers: RayDrivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")

    await RayDrivers(drivers.address).ping()
