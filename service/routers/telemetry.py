"""The service's own figures, for Prometheus."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from service.dependencies import ExpositionPart

router = APIRouter(tags=["health"])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "application/openmetrics-text": {"schema": {"type": "string"}},
        }
    }
}


@router.get("/metrics", response_class=Response, responses=_TEXT)
async def read_telemetry(
    exposition: ExpositionPart, accept: Annotated[str, Header(include_in_schema=False)] = ""
) -> Response:
    """Read the service's own figures, of all projects, as Prometheus asks for them."""
    exposed = await exposition.text(accept)
    # The media type is whole: Starlette would add a second charset.
    return Response(exposed.content, headers={"Content-Type": exposed.media_type})
