"""The states of an uploaded data set."""

from enum import StrEnum


class FileStatus(StrEnum):
    """Where a data set stands; it leaves `validating` once, for good."""

    VALIDATING = "validating"
    """Its bytes are stored, and its rows are being read."""

    READY = "ready"
    """Every row is valid."""

    INVALID = "invalid"
    """A row is not valid: the record says which, and the bytes are gone."""
