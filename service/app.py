"""Puts the control plane together: `python -m uvicorn --factory service.app:create_app`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI

from service.auth import read_token, require_token
from service.boundaries import Drivers, Runs
from service.control_loop import ControlLoop
from service.database import Database
from service.dependencies import Parts
from service.dispatcher import Dispatcher
from service.dry_runs import DryRuns
from service.errors import (
    DatabaseUnavailableError,
    InternalError,
    RequestInvalidError,
    UnauthorizedError,
    problems,
)
from service.events import Events
from service.files import Files
from service.leases import Lease
from service.lifecycle import Jobs
from service.logs import Logs
from service.middleware import BodyLimit, RequestBoundary
from service.problems import describe_problems, install_problem_handlers
from service.ray_client import RayDrivers
from service.readiness import Readiness
from service.reconciler import Reconciler
from service.reports import Reports
from service.routers import events, files, health, jobs, logs, reports, trials
from service.settings import ServiceSettings
from service.tracking import MlflowRuns
from service.trials import Trials
from service.views import Views

_MAX_BODY_BYTES = 1024**2
_UPLOADS = "/v1/files"
_TAGS = [
    {"name": "jobs", "description": "Specs being carried out: submit, follow, cancel."},
    {"name": "trials", "description": "Members of a search: list, sort, cancel one."},
    {"name": "files", "description": "Data sets to train on."},
    {"name": "health", "description": "Whether the service and what it needs answer."},
]


def create_app(
    settings: ServiceSettings | None = None,
    *,
    drivers: Drivers | None = None,
    runs: Runs | None = None,
) -> FastAPI:
    """Build the application; nothing runs before its lifespan begins.

    Args:
        settings: By default those of the environment.
        drivers: By default the Ray cluster that the settings name.
        runs: By default the MLflow server that the settings name.

    Raises:
        TokenFileError: If there is no usable API token.
    """
    settings = settings or ServiceSettings()
    app = FastAPI(
        title="hyplora",
        summary="Distributed LLM tuning with hyperbolic low-rank adapters.",
        version=version("hyplora"),
        openapi_tags=_TAGS,
        lifespan=_lifespan,
    )
    app.state.token = read_token(settings.token_path)
    app.state.parts = _assemble(
        settings,
        drivers or RayDrivers(settings.ray_address),
        runs or MlflowRuns(settings.mlflow_tracking_uri, settings.mlflow_experiment),
    )
    app.include_router(health.probes)
    app.include_router(_guarded_routes())
    install_problem_handlers(app)
    describe_problems(app)
    app.add_middleware(BodyLimit, max_bytes=_MAX_BODY_BYTES, exempt_paths={_UPLOADS})
    app.add_middleware(RequestBoundary)
    return app


def _guarded_routes() -> APIRouter:
    """Everything that needs the token."""
    router = APIRouter(
        prefix="/v1",
        dependencies=[Depends(require_token)],
        responses=problems(
            UnauthorizedError, RequestInvalidError, InternalError, DatabaseUnavailableError
        ),
    )
    for part in (jobs, trials, reports, events, logs, files, health):
        router.include_router(part.router)
    return router


def _assemble(settings: ServiceSettings, drivers: Drivers, runs: Runs) -> Parts:
    database = Database(settings.database_url)
    all_jobs = Jobs(database)
    all_files = Files(database, settings.files_dir, settings.max_upload_bytes)
    poll_interval_s = settings.poll_interval_s
    return Parts(
        settings=settings,
        database=database,
        jobs=all_jobs,
        dry_runs=DryRuns(settings, all_jobs, all_files, drivers),
        files=all_files,
        events=Events(database, poll_interval_s),
        logs=Logs(all_jobs, drivers, runs, poll_interval_s),
        trials=Trials(all_jobs, runs),
        reports=Reports(all_jobs, runs),
        views=Views(settings),
        readiness=Readiness({"database": database.ping, "ray": drivers.ping, "mlflow": runs.ping}),
        control_loop=ControlLoop(
            Lease(database, "control-loop", settings.lease_ttl_s),
            settings.lease_ttl_s,
            Reconciler(settings.max_attempts, all_jobs, drivers, runs),
            Dispatcher(settings, all_jobs, all_files, drivers, runs),
            poll_interval_s,
        ),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("service").setLevel(parts.settings.log_level)
    await asyncio.to_thread(parts.files.prepare)
    await parts.database.upgrade()
    loop = asyncio.create_task(parts.control_loop.run(), name="control-loop")
    try:
        yield
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop
        await parts.database.close()
