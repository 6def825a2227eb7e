"""Which of a database's errors mean that it is away or busy, so that trying again may help."""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_AWAY = ("08", "53", "57P", "58")
"""Classes of SQLSTATE: connection lost, out of resources, shut down, error of the system."""
_AGAIN = {
    "57014",  # ended by statement_timeout
    "55P03",  # lock not available
    "40001",  # serialization failure
    "40P01",  # deadlock
    "25P03",  # idle for too long inside a transaction
}


def is_outage(error: BaseException) -> bool:
    """Whether an error says nothing about the statement, only about the database's state.

    Args:
        error: What a transaction raised. Errors of the operating system mean much else; of them,
            only those of connections are the database's.
    """
    if isinstance(error, ConnectionError | PoolTimeoutError | OperationalError | InterfaceError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or state.startswith(_AWAY) or state in _AGAIN
