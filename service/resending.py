"""Sending a request again whose answer was lost, under a key by which the service knows it."""

import secrets
from collections.abc import Callable, Mapping
from typing import TypeVar

from service.connection import AnswerLostError, ServiceUnreachableError
from service.outage import Outage

_Answer = TypeVar("_Answer")

_PATIENCE_S = 30.0
"""Longest time without a connection, once an answer was lost: a restart of the service."""


def send_once(send: Callable[[Mapping[str, str]], _Answer], first_wait_s: float) -> _Answer:
    """Send a request until it is answered, so that it is carried out once.

    A service that cannot be reached in the first place is an error at once.

    Args:
        send: Sends the request with additional headers.
        first_wait_s: First wait before it is sent again (seconds); doubles with each failure.

    Raises:
        ServiceUnreachableError: If no answer came in time; sent with another key, the request
            might then be carried out twice.
    """
    headers = {"Idempotency-Key": secrets.token_urlsafe(24)}
    outage = Outage(first_wait_s, _PATIENCE_S, on_begin=lambda error: None)
    may_have_arrived = False
    while True:
        try:
            return send(headers)
        except ServiceUnreachableError as error:
            may_have_arrived = may_have_arrived or isinstance(error, AnswerLostError)
            if not may_have_arrived:
                raise
            outage.wait(error)
