"""Every kind of job that users submit. Torch-free."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from jobs.analyze_specs import AnalyzeSpec
from jobs.compare_specs import CompareSpec
from jobs.evaluate_specs import EvaluateSpec
from jobs.finetune_specs import FinetuneSpec
from jobs.search_specs import SearchSpec
from workers.specs import file_ids_among

JobSpec = Annotated[
    FinetuneSpec | SearchSpec | EvaluateSpec | CompareSpec | AnalyzeSpec,
    Field(discriminator="kind"),
]
"""A job, told from others by its `kind`."""


class JobKind(StrEnum):
    """What a job does."""

    FINETUNE = "finetune"
    SEARCH = "search"
    EVALUATE = "evaluate"
    COMPARE = "compare"
    ANALYZE = "analyze"


def file_ids(spec: JobSpec) -> dict[str, str]:
    """The uploaded files that a spec names, by field."""
    return file_ids_among(spec.sources())
