"""What a user asks for below the job: adapter, data, optimisation and resources.

Torch-free: the control plane validates these at the edge, and the workers read the same objects.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

FILE_ID_PATTERN = r"^file-[0-9a-f]{16}$"
"""Form of the ids under which uploaded data sets are kept."""


class Spec(BaseModel):
    """Base of every `*Spec`: frozen, closed to unknown fields, documented by its docstrings."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class LowRankSpec(Spec):
    """What LoRA and HypLoRA have in common; the names are those of PEFT's newer tuners."""

    r: int = Field(8, ge=1, le=512)
    """Rank: inner dimension of the low-rank update."""

    alpha: float = Field(16.0, gt=0)
    """Scale: the update is multiplied by alpha / r (alpha / sqrt(r) with use_rslora)."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability on the adapter's input while training."""

    target_modules: tuple[str, ...] | str = Field("all-linear", min_length=1)
    """Name suffixes of the linear layers to adapt, one regular expression, or "all-linear"."""

    exclude_modules: tuple[str, ...] | str | None = Field(None, min_length=1)
    """Name suffixes, or one regular expression, of layers to leave alone."""

    rank_pattern: dict[str, Annotated[int, Field(ge=1, le=512)]] = Field(default_factory=dict)
    """Ranks of single layers: a name suffix, or a regular expression, to its r."""

    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Scales of single layers, in the same form."""

    init_weights: bool | Literal["gaussian"] = True
    """True starts at exactly the base model (B = 0, A uniform); "gaussian" does, too, with a normal
    A; False draws B at random, for tests."""

    use_rslora: bool = False
    """Rank-stabilised scale alpha / sqrt(r)."""


class LoraSpec(LowRankSpec):
    """Plain LoRA, PEFT's own: the baseline."""

    method: Literal["lora"] = "lora"
    """Which adapter this is."""


class HypLoraSpec(LowRankSpec):
    """A HypLoRA adapter: LoRA's update with the radial gain of the Lorentz model."""

    method: Literal["hyplora"] = "hyplora"
    """Which adapter this is."""

    projection: Literal["lorentz", "stereographic", "euclidean"] = "lorentz"
    """The paper's; the authors' simplified variant; or plain LoRA, on which curvature, norm scale
    and radius cap have no effect."""

    curvature: float = Field(1.0, gt=0)
    """The paper's K > 0, in units of norm_scale squared; the sectional curvature is -1/K."""

    curvature_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Curvatures of single layers, in the form of rank_pattern."""

    learn_curvature: bool = False
    """Learn K in every adapted layer, starting at `curvature`."""

    share_curvature: bool = False
    """Learn one K for all adapted layers instead."""

    curvature_bounds: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (
        1e-3,
        1e4,
    )
    """Smallest and largest K that learning may reach."""

    curvature_gradient_bound: float | None = Field(None, gt=0)
    """Largest absolute gradient of log K that a learned K takes; null for any."""

    norm_scale: float | None = Field(None, gt=0)
    """Norm scale nu in which hidden states are measured; by default sqrt(d_in) of each layer."""

    learn_norm_scale: bool = False
    """Learn nu in every adapted layer, starting at `norm_scale`."""

    radius_cap: float = Field(4.0, gt=0, le=20)
    """Largest radius ||x|| / (nu sqrt(K)) in the Lorentz gain; tokens beyond are clipped to it."""

    rescale_output: bool = True
    """True multiplies the update by nu again, so that K to infinity is LoRA; false leaves it in
    units of nu, as the authors' released code does."""

    @model_validator(mode="after")
    def _what_is_learned_can_be(self) -> "HypLoraSpec":
        low, high = self.curvature_bounds
        starts = [self.curvature, *self.curvature_pattern.values()]
        if low >= high:
            raise ValueError("curvature_bounds must rise: give the smallest K first")
        if self.learn_curvature and not all(low <= start <= high for start in starts):
            raise ValueError("curvature must start inside curvature_bounds to be learned")
        if self.share_curvature and not self.learn_curvature:
            raise ValueError("share_curvature has no effect without learn_curvature")
        if self.share_curvature and self.curvature_pattern:
            raise ValueError("curvature_pattern contradicts share_curvature")
        if self.projection == "euclidean" and (self.learn_curvature or self.learn_norm_scale):
            raise ValueError(
                "learn_curvature and learn_norm_scale have nothing to learn in the euclidean "
                "projection"
            )
        return self


def _method_of(value: object) -> str:
    """Tag of an adapter spec; HypLoRA where the user names no method."""
    if isinstance(value, dict):
        return str(value.get("method", "hyplora"))
    return str(getattr(value, "method", "hyplora"))


AdapterSpec = Annotated[
    Annotated[HypLoraSpec, Tag("hyplora")] | Annotated[LoraSpec, Tag("lora")],
    Discriminator(_method_of),
]
"""The adapter a job trains."""


class DataSpec(Spec):
    """Which rows are trained on and which are held out for the evaluation loss."""

    train: str = Field(pattern=FILE_ID_PATTERN)
    """File id of the training rows, from POST /v1/files."""

    validation: str | None = Field(None, pattern=FILE_ID_PATTERN)
    """File id of held-out rows; without it, `validation_rows` are cut from the training rows."""

    validation_rows: int = Field(0, ge=0)
    """Rows, drawn by `seed`, that are held out of `train` when no `validation` file is given."""

    seed: int = Field(0, ge=0)
    """Seed of the held-out draw."""

    max_length: int | None = Field(None, ge=8)
    """Longest row in tokens, by default the base model's context; a longer row fails the job."""

    @model_validator(mode="after")
    def _one_source_of_validation_rows(self) -> "DataSpec":
        if self.validation is not None and self.validation_rows:
            raise ValueError("give either validation or validation_rows, not both")
        return self


class TrainingSpec(Spec):
    """How the adapter is optimised: AdamW, linear warm-up, linear decay to zero."""

    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate."""

    num_epochs: int = Field(3, ge=1)
    """Passes over the training rows, unless max_steps ends the training earlier."""

    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps after which training ends, if that is before num_epochs are done."""

    batch_size: int = Field(16, ge=1)
    """Rows in one optimizer step, over all workers."""

    micro_batch_size: int = Field(4, ge=1)
    """Most rows that one worker holds in one forward pass; the rest is accumulated."""

    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from zero."""

    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this global norm."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the frozen base model; "auto" keeps the one it is stored in."""

    seed: int = Field(0, ge=0)
    """Seed of initialisation, data order and dropout."""

    eval_every_steps: int | None = Field(None, ge=1)
    """Steps between evaluations; without it the evaluation loss is measured at the end only."""

    geometry_every_steps: int | None = Field(None, ge=1)
    """Steps between metrics of each HypLoRA layer's geometry, named `geometry/QUANTITY/LAYER`: K,
    norm scale, mean radius, cap rate, mean and largest gain. Without it they cost nothing."""

    checkpoint_every_steps: int = Field(50, ge=1)
    """Steps between checkpoints: at most this much work is lost when a worker dies."""


class ResourcesSpec(Spec):
    """What the job asks of the cluster."""

    num_workers: int = Field(1, ge=1, le=64)
    """Data-parallel training processes."""

    cpus_per_worker: int = Field(1, ge=1, le=256)
    """CPU cores reserved for, and used by, each worker."""

    gpus_per_worker: Literal[0, 1] | None = None
    """GPUs a worker; by default one where the cluster has enough of them, else none."""


class FailureCode(StrEnum):
    """Stable reasons for which a job fails; docs/api.md says what to do about each."""

    BASE_MODEL_NOT_FOUND = "base-model-not-found"
    BASE_MODEL_UNUSABLE = "base-model-unusable"
    DATA_INVALID = "data-invalid"
    ROW_TOO_LONG = "row-too-long"
    TARGET_MODULES_NOT_FOUND = "target-modules-not-found"
    LOSS_NOT_FINITE = "loss-not-finite"
    RESOURCES_UNAVAILABLE = "resources-unavailable"
    WORKERS_LOST = "workers-lost"
    ADAPTER_UNUSABLE = "adapter-unusable"
    DRIVER_LOST = "driver-lost"
    INTERNAL = "internal"


class RunMetric(StrEnum):
    """MLflow metrics of a training run; the step axis is the optimizer step."""

    LOSS = "train/loss"
    LEARNING_RATE = "train/learning_rate"
    GRADIENT_NORM = "train/gradient_norm"
    TOKENS_PER_S = "train/tokens_per_s"
    CURVATURE = "train/curvature"
    EVAL_LOSS = "eval/loss"
    STEP = "progress/step"
    TOTAL_STEPS = "progress/total_steps"
    SECONDS_LEFT = "progress/seconds_left"
    CHECKPOINT_STEP = "progress/checkpoint_step"
