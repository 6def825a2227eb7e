"""What a user asks for below the job: adapter, data, optimisation and resources.

Torch-free: the control plane validates these at the edge, and the workers read the same objects.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from workers.document import Document

FILE_ID_PATTERN = r"^file-[0-9a-f]{16}$"
"""Form of the ids under which uploaded data sets are kept."""

SOURCE_SCHEMES = ("file", "s3", "gs", "abfs")
"""URLs that workers read rows from, through fsspec; `file` is storage that every worker sees."""

_URL_PATTERN = (
    r"^(?:file://|(?:s3|gs)://[A-Za-z0-9][A-Za-z0-9._-]*|abfs://[A-Za-z0-9-]+(?:@[A-Za-z0-9.-]+)?)"
    r"/[^\x00-\x1f\x7f]+$"
)
"""A bucket's name and nothing else stands before the path: no credentials, no address."""


class Spec(Document):
    """Base of every `*Spec`, what a user asks for."""


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
    """LoRA, PEFT's own: the baseline; with `use_dora` or `use_rslora` two of its variants."""

    method: Literal["lora"] = "lora"
    """Which adapter this is."""

    use_dora: bool = False
    """DoRA: the norm of each output's weights is learned apart from their direction (Liu et al.
    2024, arXiv:2402.09353)."""


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


def method_of(value: object) -> str:
    """Tag of an adapter spec; HypLoRA where the user names no method."""
    if isinstance(value, dict):
        return str(value.get("method", "hyplora"))
    return str(getattr(value, "method", "hyplora"))


AdapterSpec = Annotated[
    Annotated[HypLoraSpec, Tag("hyplora")] | Annotated[LoraSpec, Tag("lora")],
    Discriminator(method_of),
]
"""The adapter a job trains."""


RowField = Literal["instruction", "input", "output", "prompt", "completion", "messages"]
"""Fields of the three forms of a row."""

ChatTemplateName = Literal["plain", "chatml", "llama3", "gemma", "raw"]
"""Layouts for base models that bring none."""


class HubDatasetSpec(Spec):
    """A data set of the Hugging Face hub."""

    dataset: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?$", max_length=200)
    """Its id, such as openai/gsm8k."""

    config: str | None = Field(None, min_length=1, max_length=200)
    """Its configuration, such as main, where it has several."""

    split: str = Field("train", min_length=1, max_length=200)
    """The part to read, such as train or test; slices as in train[:10%] are understood."""

    revision: str | None = Field(None, min_length=1, max_length=200)
    """Branch, tag or commit; give a commit to read the same rows for ever."""


def _require_source(source: str) -> str:
    is_url = bool(re.fullmatch(_URL_PATTERN, source))  # `$` alone would admit a line feed
    if is_url and ("::" in source or ".." in source.split("/")):
        raise ValueError("a URL may neither hold another (::) nor lead upwards (..)")
    if is_url or re.fullmatch(FILE_ID_PATTERN, source):
        return source
    raise ValueError(
        "give the id of an uploaded file (file-…), a URL that begins with file:///, "
        f"{', '.join(f'{scheme}://' for scheme in SOURCE_SCHEMES[1:])}, or a data set of the "
        'Hugging Face hub as {"dataset": …}'
    )


def _kind_of_source(value: object) -> str:
    return "url" if isinstance(value, str) else "hub"


DataSource = Annotated[
    Annotated[
        str,
        Field(max_length=2000, json_schema_extra={"pattern": f"{FILE_ID_PATTERN}|{_URL_PATTERN}"}),
        AfterValidator(_require_source),
        Tag("url"),
    ]
    | Annotated[HubDatasetSpec, Tag("hub")],
    Discriminator(_kind_of_source),
]
"""Where rows come from: the id of an uploaded file; a URL (file:///…, s3://…, gs://…, abfs://…) of
JSON lines, plain or gzip, or Parquet; or a data set of the Hugging Face hub.

Storage is read with the credentials of the workers' environment.
"""


class DataSources(Spec):
    """Which rows are trained on and which are held out."""

    train: DataSource
    """The training rows."""

    validation: DataSource | None = None
    """Held-out rows; without them, `validation_rows` are cut from the training rows."""


class DataOptions(Spec):
    """How the rows of a job are read."""

    validation_rows: int = Field(0, ge=0)
    """Rows, drawn by `seed`, that are held out of `train` when no `validation` is given."""

    evaluation_sets: dict[Annotated[str, Field(pattern=r"^\w[\w.-]{0,63}$")], DataSource] = Field(
        default_factory=dict, max_length=32
    )
    """Rows that the adapter will be judged by, by name: the training rows are searched for them."""

    leakage: Literal["warn", "drop", "fail"] = "warn"
    """What becomes of training rows that are, exactly or nearly, rows of an evaluation set: told in
    the report, left out, or the end of the job."""

    columns: dict[RowField, str] = Field(default_factory=dict)
    """Fields of the rows under other names, such as {"instruction": "question"}."""

    chat_template: ChatTemplateName | None = None
    """Layout of a conversation; by default the base model's own, else "plain". "raw" puts nothing
    between the texts. It is kept with the adapter."""

    loss_on: Literal["answers", "last_answer", "all"] = "answers"
    """Tokens that are learned: all answers of a conversation, the last one, or every token."""

    long_rows: Literal["fail", "truncate", "drop"] = "fail"
    """What becomes of rows longer than `max_length`: they end the job, are cut, or left out."""

    max_length: int | None = Field(None, ge=8)
    """Longest row in tokens, by default the base model's context."""

    seed: int = Field(0, ge=0)
    """Seed of the held-out draw."""


class DataSpec(DataOptions, DataSources):
    """Which rows are trained on, which are held out, and how they are read.

    A row is an instruction (`instruction`, `input`, `output`), a conversation (`messages`, as
    OpenAI writes them) or a pair of `prompt` and `completion`; docs/data.md shows each.
    """

    @model_validator(mode="after")
    def _one_source_of_validation_rows(self) -> "DataSpec":
        if self.validation is not None and self.validation_rows:
            raise ValueError("give either validation or validation_rows, not both")
        return self

    def sources(self) -> "dict[str, str | HubDatasetSpec]":
        """Every source by the field that names it."""
        named = {"data.train": self.train, "data.validation": self.validation}
        for name, source in self.evaluation_sets.items():
            named[f"data.evaluation_sets.{name}"] = source
        return {field: source for field, source in named.items() if source is not None}


def file_ids_among(sources: Mapping[str, str | HubDatasetSpec]) -> dict[str, str]:
    """The uploaded files among sources, by field."""
    return {
        field: source
        for field, source in sources.items()
        if isinstance(source, str) and re.fullmatch(FILE_ID_PATTERN, source)
    }


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

    micro_batch_tokens: int = Field(1024, ge=1)
    """Most tokens that one worker holds in one forward pass, where rows lie one behind the other
    without padding; a longer row goes alone. The rest of a step is accumulated."""

    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from zero."""

    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this global norm."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the frozen base model; "auto" keeps the one it is stored in."""

    quantization: Literal["8bit", "4bit"] | None = None
    """Weights of the frozen base model in 8-bit integers or 4-bit floats (nf4), by bitsandbytes."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a
    third more time."""

    compile: bool = False
    """Compile the model with torch.compile: a minute or more at first, then faster on most GPUs."""

    shard_base_model: bool = False
    """Spread the frozen base model's weights over the workers (FSDP2), for one that a single GPU
    cannot hold. Without it each worker holds them all (DDP)."""

    seed: int = Field(0, ge=0)
    """Seed of initialisation, data order and dropout."""

    eval_every_steps: int | None = Field(None, ge=1)
    """Steps between evaluations; without it the evaluation loss is measured at the end only."""

    geometry_every_steps: int | None = Field(None, ge=1)
    """Steps between metrics of each HypLoRA layer's geometry, named `geometry/QUANTITY/LAYER`: K,
    norm scale, mean radius, cap rate, mean and largest gain. Without it they cost nothing."""

    checkpoint_every_steps: int | None = Field(50, ge=1)
    """Steps between checkpoints: at most this much work is lost when a worker dies."""

    checkpoint_every_minutes: float | None = Field(None, gt=0)
    """Minutes between checkpoints, whichever of the two comes first."""

    kept_checkpoints: int = Field(2, ge=1, le=100)
    """Newest checkpoints that are kept; an older one serves if the newest is damaged."""


WorkerRange = tuple[Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]]
"""Fewest and most workers of an elastic job."""


class ResourcesSpec(Spec):
    """What the job asks of the cluster."""

    num_workers: Annotated[int, Field(ge=1, le=64)] | WorkerRange = 1
    """Data-parallel training processes: a number, or [fewest, most] to go on with what the cluster
    has when nodes come and go."""

    cpus_per_worker: int = Field(1, ge=1, le=256)
    """CPU cores reserved for, and used by, each worker."""

    gpus_per_worker: Literal[0, 1] | None = None
    """GPUs a worker; by default one where the cluster has enough of them, else none."""

    @model_validator(mode="after")
    def _range_rises(self) -> "ResourcesSpec":
        if self.fewest_workers > self.most_workers:
            raise ValueError("num_workers must rise: give the fewest workers first")
        return self

    @property
    def fewest_workers(self) -> int:
        """Workers without which the job does not start."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def most_workers(self) -> int:
        """Workers that the job has use for."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]


class FailureCode(StrEnum):
    """Stable reasons for which a job fails; docs/api.md says what to do about each."""

    BASE_MODEL_NOT_FOUND = "base-model-not-found"
    BASE_MODEL_UNUSABLE = "base-model-unusable"
    REFERENCE_NOT_ALLOWED = "reference-not-allowed"
    DATA_INVALID = "data-invalid"
    DATA_LEAKED = "data-leaked"
    ROW_TOO_LONG = "row-too-long"
    TARGET_MODULES_NOT_FOUND = "target-modules-not-found"
    LOSS_NOT_FINITE = "loss-not-finite"
    OUT_OF_MEMORY = "out-of-memory"
    STORAGE_FULL = "storage-full"
    CHECKPOINT_DAMAGED = "checkpoint-damaged"
    NO_TRIAL_COMPLETED = "no-trial-completed"
    NO_METHOD_COMPLETED = "no-method-completed"
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
    NUM_TOKENS = "progress/num_tokens"
