"""Every kind of job that users submit. Torch-free."""

from typing import Annotated

from pydantic import Field

from jobs.finetune_specs import FinetuneSpec
from jobs.search_specs import SearchSpec

JobSpec = Annotated[FinetuneSpec | SearchSpec, Field(discriminator="kind")]
"""A job, told from others by its `kind`."""
