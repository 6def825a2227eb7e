"""One MLflow server: requests to it in threads, and its errors in the control plane's words."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from service.errors import MlflowUnavailableError, RefusedError, root_cause

_T = TypeVar("_T")
_TIMEOUT_S = 10
_LASTING_ERRORS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
"""MLflow's words for what is wrong with a request; all others are trouble of the server's."""


class MlflowServer:
    """A server and its client, which blocks.

    Args:
        tracking_uri: Of the server; credentials come from MLFLOW_TRACKING_USERNAME and the like.
    """

    def __init__(self, tracking_uri: str) -> None:
        # MLflow reads these from the environment alone. No retry: a request whose answer got
        # lost would be sent again and open a second run; the control loop looks before it repeats.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_TIMEOUT_S))
        self.uri = tracking_uri
        self.client = MlflowClient(tracking_uri=tracking_uri)

    async def call(self, request: Callable[[], _T]) -> _T:
        """Carry out a request that blocks.

        Raises:
            MlflowUnavailableError: If the server does not answer, or has trouble of its own.
            RefusedError: If it refuses the request for good.
        """
        try:
            return await asyncio.to_thread(request)
        except MlflowException as error:
            if error.error_code in _LASTING_ERRORS:
                raise RefusedError(f"MLflow refused: {root_cause(error)}") from error
            raise self._unavailable(error) from error
        except OSError as error:  # artifact stores raise requests' errors, which are OSErrors
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> MlflowUnavailableError:
        return MlflowUnavailableError(
            f"MLflow at {self.uri} is out of reach ({root_cause(error)}); jobs wait for it"
        )


def is_missing(error: MlflowException) -> bool:
    """Whether MLflow says that there is no such thing."""
    return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")


def moment(milliseconds: int | None) -> datetime | None:
    """A time of MLflow's."""
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
