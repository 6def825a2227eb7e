"""What routes ask for by type: the parts of the running service."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.control_loop import ControlLoop
from service.database import Database
from service.dry_runs import DryRuns
from service.events import Events
from service.files import Files
from service.lifecycle import Jobs
from service.logs import Logs
from service.readiness import Readiness
from service.reports import Reports
from service.settings import ServiceSettings
from service.trials import Trials
from service.views import Views


@dataclass(frozen=True)
class Parts:
    """The parts of one service; `service.app` puts them together."""

    settings: ServiceSettings
    database: Database
    jobs: Jobs
    dry_runs: DryRuns
    files: Files
    events: Events
    logs: Logs
    trials: Trials
    reports: Reports
    views: Views
    readiness: Readiness
    control_loop: ControlLoop


def _part(name: str) -> Callable[[Request], object]:
    def part(request: Request) -> object:
        return getattr(request.app.state.parts, name)

    return part


SettingsPart = Annotated[ServiceSettings, Depends(_part("settings"))]
JobsPart = Annotated[Jobs, Depends(_part("jobs"))]
DryRunsPart = Annotated[DryRuns, Depends(_part("dry_runs"))]
FilesPart = Annotated[Files, Depends(_part("files"))]
EventsPart = Annotated[Events, Depends(_part("events"))]
LogsPart = Annotated[Logs, Depends(_part("logs"))]
ReportsPart = Annotated[Reports, Depends(_part("reports"))]
TrialsPart = Annotated[Trials, Depends(_part("trials"))]
ViewsPart = Annotated[Views, Depends(_part("views"))]
ReadinessPart = Annotated[Readiness, Depends(_part("readiness"))]
