"""What a user says of every job, of whatever kind. Torch-free."""

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from workers.specs import Spec

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Form of job, model and alias names: safe in URLs, file names and MLflow model URIs."""

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.: -]{1,64}$")]
"""A tag, or a key of the metadata: what MLflow takes as the name of a run's tag, but no slash."""

MetadataValue = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=512)]
"""Any text but for the one character that PostgreSQL cannot keep."""


class LabelledSpec(Spec):
    """What jobs are told apart by and found again."""

    name: str = Field(pattern=NAME_PATTERN)
    """Name of the job, for people; need not be unique."""

    tags: tuple[Label, ...] = Field((), max_length=16)
    """Words to find the job by, such as "nightly"."""

    metadata: dict[Label, MetadataValue] = Field(default_factory=dict, max_length=16)
    """Facts to find the job by, such as {"team": "maths"}."""

    priority: int = Field(0, ge=-100, le=100)
    """Place in the queue of its project: the higher comes first."""

    @field_validator("tags")
    @classmethod
    def _tags_are_different(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tags)) < len(tags):
            raise ValueError("a tag is given twice")
        return tags
