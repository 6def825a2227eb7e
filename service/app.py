"""Puts the control plane together: `python -m uvicorn --factory service.app:create_app`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI

from service.adapter_archive import Adapters
from service.artifacts import Artifacts
from service.audit import AuditLog
from service.auth import require_admin, require_scope_of_method, require_scrape
from service.boundaries import Drivers, Registry, Runs
from service.census import JobCensus
from service.checkpoint_storage import CheckpointStorage
from service.checkpoints import Checkpoints
from service.contents import Contents
from service.control_loop import ControlLoop
from service.database import Database
from service.dependencies import Parts
from service.dispatcher import Dispatcher
from service.dry_runs import DryRuns
from service.errors import (
    DatabaseUnavailableError,
    ForbiddenError,
    InternalError,
    RateLimitedError,
    RequestInvalidError,
    UnauthorizedError,
    problems,
)
from service.events import Events
from service.exposition import Exposition
from service.files import Files, UploadLimits
from service.gate import Gate
from service.job_metrics import JobMetrics
from service.keys import Keys
from service.leases import Lease
from service.led_jobs import LedJobs
from service.lifecycle import Jobs
from service.logs import Logs
from service.middleware import MAX_BODY_BYTES, BodyLimit, RequestBoundary
from service.mlflow_server import MlflowServer
from service.model_changes import ModelChanges
from service.model_lineage import Lineages
from service.model_registry import MlflowRegistry
from service.model_uses import ModelUses
from service.model_views import ModelViews
from service.models import Models
from service.openai import file_routes, job_routes, model_routes
from service.openai.problems import OPENAI_PREFIX
from service.problems import describe_problems, install_problem_handlers
from service.rate_limits import RateLimit
from service.ray_client import RayDrivers
from service.readiness import Readiness
from service.reconciler import Reconciler
from service.reports import Reports
from service.request_telemetry import RequestTelemetry
from service.routers import (
    artifacts,
    audit,
    checkpoints,
    events,
    files,
    health,
    jobs,
    keys,
    logs,
    metrics,
    models,
    reports,
    telemetry,
    trials,
)
from service.row_checks import RowChecks
from service.settings import ServiceSettings
from service.telemetry import Telemetry
from service.tracking import MlflowRuns
from service.trials import Trials
from service.validation import Validation
from service.views import Views

logger = logging.getLogger(__name__)

_UPLOADS = {"/v1/files", f"{OPENAI_PREFIX}/files"}
_TAGS = [
    {"name": "jobs", "description": "Specs being carried out: submit, follow, cancel."},
    {"name": "trials", "description": "Members of a search: list, sort, cancel one."},
    {"name": "files", "description": "Data sets to train on."},
    {"name": "models", "description": "Registered adapters: promote, trace, download, delete."},
    {"name": "openai", "description": "The same for OpenAI's own clients, in their forms."},
    {"name": "keys", "description": "API keys, and the log of what was done with them."},
    {"name": "health", "description": "Whether the service and what it needs answer."},
]
_REFUSALS = problems(
    UnauthorizedError,
    ForbiddenError,
    RateLimitedError,
    RequestInvalidError,
    InternalError,
    DatabaseUnavailableError,
)


def create_app(
    settings: ServiceSettings | None = None,
    *,
    drivers: Drivers | None = None,
    runs: Runs | None = None,
    registry: Registry | None = None,
) -> FastAPI:
    """Build the application; nothing runs before its lifespan begins.

    Args:
        settings: By default those of the environment.
        drivers: By default the Ray cluster that the settings name.
        runs: By default those of the MLflow server that the settings name.
        registry: By default that of the same server.
    """
    settings = settings or ServiceSettings()
    app = FastAPI(
        title="hyplora",
        summary="Distributed LLM tuning with hyperbolic low-rank adapters.",
        version=version("hyplora"),
        openapi_tags=_TAGS,
        lifespan=_lifespan,
        # Names of operations, and of functions in clients that are made of the description.
        generate_unique_id_function=lambda route: route.name,
    )
    if runs is None or registry is None:
        server = MlflowServer(settings.mlflow_tracking_uri)
        runs = runs or MlflowRuns(server, settings.mlflow_experiment)
        registry = registry or MlflowRegistry(server)
    drivers = drivers or RayDrivers(settings.ray_address)
    app.state.parts = parts = _assemble(settings, drivers, runs, registry)
    app.include_router(health.probes)
    app.include_router(_scraped_routes())
    app.include_router(_guarded_routes())
    app.include_router(_admin_routes())
    app.include_router(_openai_routes())
    install_problem_handlers(app)
    describe_problems(app)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES, exempt_paths=_UPLOADS)
    app.add_middleware(RequestBoundary)
    app.add_middleware(RequestTelemetry, telemetry=parts.telemetry)
    return app


@cache
def _scraped_routes() -> APIRouter:
    """What Prometheus asks for."""
    router = APIRouter(dependencies=[Depends(require_scrape)], responses=_REFUSALS)
    router.include_router(telemetry.router)
    return router


@cache
def _guarded_routes() -> APIRouter:
    """What users do: everything needs a key, and every change one that may submit."""
    router = APIRouter(
        prefix="/v1", dependencies=[Depends(require_scope_of_method)], responses=_REFUSALS
    )
    of_jobs = (jobs, trials, metrics, checkpoints, artifacts, reports, events, logs)
    for part in (*of_jobs, files, models, health):
        router.include_router(part.router)
    return router


@cache
def _openai_routes() -> APIRouter:
    """What users do with OpenAI's clients."""
    router = APIRouter(
        prefix=OPENAI_PREFIX, dependencies=[Depends(require_scope_of_method)], responses=_REFUSALS
    )
    for part in (file_routes, job_routes, model_routes):
        router.include_router(part.router)
    return router


@cache
def _admin_routes() -> APIRouter:
    """What administrators do."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(require_admin)], responses=_REFUSALS)
    for part in (keys, audit):
        router.include_router(part.router)
    return router


def _assemble(settings: ServiceSettings, drivers: Drivers, runs: Runs, registry: Registry) -> Parts:
    counted = Telemetry(version("hyplora"))
    database = Database(settings.database_url, on_outage=counted.database_outage)
    audit_log = AuditLog(database)
    all_keys = Keys(database)
    all_jobs = Jobs(database, registry, settings.reach, watcher=counted)
    contents = Contents(database, settings.files_dir)
    checks = RowChecks(settings.max_validations)
    validation = Validation(database, contents, checks, settings.lease_ttl_s)
    limits = UploadLimits(settings.max_upload_bytes, settings.upload_wait_s)
    all_files = Files(database, contents, checks, validation, limits)
    all_models = Models(database, registry)
    lease = Lease(database, "control-loop", settings.lease_ttl_s)
    led_jobs = LedJobs(database, lease, watcher=counted)
    poll_interval_s = settings.poll_interval_s
    control_loop = ControlLoop(
        lease,
        settings.lease_ttl_s,
        Reconciler(settings.max_attempts, led_jobs, drivers, runs),
        Dispatcher(settings, led_jobs, all_files, drivers, runs),
        poll_interval_s,
        on_round=counted.round,
    )
    return Parts(
        settings=settings,
        database=database,
        keys=all_keys,
        gate=Gate(
            all_keys,
            RateLimit(settings.requests_per_minute, settings.requests_burst),
            RateLimit(settings.failures_per_minute, settings.failures_per_minute),
        ),
        audit=audit_log,
        jobs=all_jobs,
        dry_runs=DryRuns(settings, all_jobs, all_files, drivers),
        contents=contents,
        files=all_files,
        validation=validation,
        events=Events(database, poll_interval_s),
        logs=Logs(all_jobs, drivers, runs, poll_interval_s),
        metrics=JobMetrics(all_jobs, runs),
        checkpoints=Checkpoints(all_jobs, runs, CheckpointStorage(settings.storage_path)),
        artifacts=Artifacts(all_jobs, runs),
        trials=Trials(all_jobs, runs, audit_log),
        reports=Reports(all_jobs, runs),
        models=all_models,
        model_changes=ModelChanges(all_models, ModelUses(database), registry, audit_log),
        lineages=Lineages(all_models, all_jobs),
        adapters=Adapters(all_models, registry),
        model_views=ModelViews(settings),
        views=Views(settings),
        readiness=Readiness({"database": database.ping, "ray": drivers.ping, "mlflow": runs.ping}),
        control_loop=control_loop,
        telemetry=counted,
        exposition=Exposition(
            counted, JobCensus(database), control_loop, settings.max_live_drivers
        ),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("service").setLevel(parts.settings.log_level)
    await asyncio.to_thread(parts.contents.prepare)
    await parts.database.upgrade()
    if not await parts.keys.is_any_valid():
        logger.warning("there is no valid API key; make one with: hyplora keys create NAME")
    tasks = [
        asyncio.create_task(parts.control_loop.run(), name="control-loop"),
        asyncio.create_task(parts.gate.note_uses(), name="key-uses"),
        asyncio.create_task(parts.validation.run(), name="validation"),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await parts.database.close()
