"""For probes and for clients that introduce themselves: alive, ready, and who is here."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from service.answers import HealthRead, InfoRead, ReadinessRead
from service.auth import CallerPart
from service.capabilities import capabilities
from service.capability_answers import CapabilitiesRead
from service.dependencies import ReadinessPart, SettingsPart

probes = APIRouter(tags=["health"])
router = APIRouter(tags=["health"])


@probes.get("/healthz")
async def read_health(request: Request) -> HealthRead:
    """Say that the process is alive; asks nothing of anything else."""
    return HealthRead(status="ok", version=request.app.version)


@probes.get(
    "/readyz",
    responses={503: {"model": ReadinessRead, "description": "Something does not answer."}},
)
async def read_readiness(readiness: ReadinessPart, response: Response) -> ReadinessRead:
    """Ask the database, Ray and MLflow whether they answer."""
    answer = await readiness.check()
    if answer.status != "ok":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return answer


@router.get("/capabilities")
async def read_capabilities(
    request: Request, settings: SettingsPart, caller: CallerPart
) -> CapabilitiesRead:
    """Say what jobs can be asked for here, how much this service takes, and what the key may do."""
    return capabilities(request.app.version, settings, caller)


@router.get("/info")
async def read_info(request: Request, settings: SettingsPart) -> InfoRead:
    """Say which version this is, and where Ray and MLflow are."""
    return InfoRead(
        version=request.app.version,
        mlflow_tracking_uri=settings.mlflow_tracking_uri,
        ray_dashboard_url=settings.ray_dashboard_url,
    )
