"""What routes ask for by type: the parts of the running service.

Parts that hold what belongs to somebody are handed out as they are for the caller alone, so a route
cannot forget to look whose a job or a file is; who has no valid key gets none of them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Protocol, Self

from fastapi import Depends, Request

from service.adapter_archive import Adapters
from service.artifacts import Artifacts
from service.audit import AuditLog
from service.auth import CallerPart
from service.callers import Caller
from service.checkpoints import Checkpoints
from service.contents import Contents
from service.control_loop import ControlLoop
from service.database import Database
from service.dry_runs import DryRuns
from service.events import Events
from service.exposition import Exposition
from service.files import Files
from service.gate import Gate
from service.job_metrics import JobMetrics
from service.keys import Keys
from service.lifecycle import Jobs
from service.logs import Logs
from service.model_changes import ModelChanges
from service.model_lineage import Lineages
from service.model_views import ModelViews
from service.models import Models
from service.readiness import Readiness
from service.reports import Reports
from service.settings import ServiceSettings
from service.telemetry import Telemetry
from service.trials import Trials
from service.validation import Validation
from service.views import Views


@dataclass(frozen=True)
class Parts:
    """The parts of one service; `service.app` puts them together."""

    settings: ServiceSettings
    database: Database
    keys: Keys
    gate: Gate
    audit: AuditLog
    jobs: Jobs
    dry_runs: DryRuns
    contents: Contents
    files: Files
    validation: Validation
    events: Events
    logs: Logs
    metrics: JobMetrics
    checkpoints: Checkpoints
    artifacts: Artifacts
    trials: Trials
    reports: Reports
    models: Models
    model_changes: ModelChanges
    lineages: Lineages
    adapters: Adapters
    model_views: ModelViews
    views: Views
    readiness: Readiness
    control_loop: ControlLoop
    telemetry: Telemetry
    exposition: Exposition


class Scoped(Protocol):
    """A part that is another for each caller."""

    def acting_for(self, caller: Caller) -> Self:
        """The part as it is for a caller."""
        ...


# Asynchronous, though they wait for nothing: FastAPI calls plain functions in threads.


def _part(name: str) -> Callable[[Request], Awaitable[object]]:
    async def part(request: Request) -> object:
        return getattr(request.app.state.parts, name)

    return part


def _own_part(name: str) -> Callable[[Request, Caller], Awaitable[object]]:
    async def part(request: Request, caller: CallerPart) -> object:
        shared: Scoped = getattr(request.app.state.parts, name)
        return shared.acting_for(caller)

    return part


SettingsPart = Annotated[ServiceSettings, Depends(_part("settings"))]
JobsPart = Annotated[Jobs, Depends(_own_part("jobs"))]
DryRunsPart = Annotated[DryRuns, Depends(_own_part("dry_runs"))]
FilesPart = Annotated[Files, Depends(_own_part("files"))]
EventsPart = Annotated[Events, Depends(_own_part("events"))]
JobMetricsPart = Annotated[JobMetrics, Depends(_own_part("metrics"))]
CheckpointsPart = Annotated[Checkpoints, Depends(_own_part("checkpoints"))]
ArtifactsPart = Annotated[Artifacts, Depends(_own_part("artifacts"))]
LogsPart = Annotated[Logs, Depends(_own_part("logs"))]
ReportsPart = Annotated[Reports, Depends(_own_part("reports"))]
TrialsPart = Annotated[Trials, Depends(_own_part("trials"))]
ModelsPart = Annotated[Models, Depends(_own_part("models"))]
ModelChangesPart = Annotated[ModelChanges, Depends(_own_part("model_changes"))]
LineagesPart = Annotated[Lineages, Depends(_own_part("lineages"))]
AdaptersPart = Annotated[Adapters, Depends(_own_part("adapters"))]
KeysPart = Annotated[Keys, Depends(_own_part("keys"))]
AuditPart = Annotated[AuditLog, Depends(_part("audit"))]
ModelViewsPart = Annotated[ModelViews, Depends(_part("model_views"))]
ViewsPart = Annotated[Views, Depends(_part("views"))]
ReadinessPart = Annotated[Readiness, Depends(_part("readiness"))]
TelemetryPart = Annotated[Telemetry, Depends(_part("telemetry"))]
ExpositionPart = Annotated[Exposition, Depends(_part("exposition"))]
