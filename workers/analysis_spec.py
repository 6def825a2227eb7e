"""What a user asks for to have the geometry of a model measured. Torch-free."""

from typing import Literal

from pydantic import Field

from workers.specs import Spec

AnalysisPart = Literal["hyperbolicity", "power_law", "norms", "word_groups", "adapter_effect"]
"""What can be measured; docs/analysis.md explains each."""


class AnalysisSpec(Spec):
    """What of a model's geometry is measured, and how exactly."""

    parts: tuple[AnalysisPart, ...] = Field(
        ("hyperbolicity", "power_law", "norms", "word_groups", "adapter_effect"), min_length=1
    )
    """What is measured; the adapter's effect needs a HypLoRA adapter and is left out without."""

    num_prompts: int = Field(100, ge=1, le=10_000)
    """Rows, drawn by `seed`, whose questions are sent through the model."""

    max_points: int | None = Field(None, ge=4, le=20_000)
    """Most points of a prompt, drawn by `seed`, that delta is measured over; by default all."""

    num_base_points: int = Field(3, ge=1, le=100)
    """Base points, drawn by `seed`, that delta is measured from."""

    num_resamples: int = Field(200, ge=20, le=100_000)
    """Synthetic data sets behind the power law's goodness of fit, whose p-value is known to about
    0.5 / sqrt(num_resamples); as many resamples are behind the exponent's interval."""

    seed: int = Field(0, ge=0)
    """Seed of every draw."""
