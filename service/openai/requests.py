"""What OpenAI's clients send to begin a fine-tune, closed to what cannot be honoured here."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from jobs.finetune_specs import RegistrySpec
from jobs.label_specs import NAME_PATTERN, Label, MetadataValue
from service.openai.model_ids import ModelId
from workers.analysis_spec import AnalysisSpec
from workers.specs import (
    DataOptions,
    DataSource,
    HypLoraSpec,
    LoraSpec,
    ResourcesSpec,
    Spec,
    TrainingSpec,
    method_of,
)

Auto = Literal["auto"]


class Hyperparameters(Spec):
    """OpenAI's settings of a training; "auto" is what a job of this service has by default."""

    batch_size: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Rows in one optimizer step; `training.batch_size` of a job's specification."""

    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] = "auto"
    """Peak learning rate, in units of the default of `training.learning_rate`."""

    n_epochs: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Passes over the training rows; `training.num_epochs` of a job's specification."""


class SupervisedMethod(Spec):
    """Supervised fine-tuning, as OpenAI calls it."""

    hyperparameters: Hyperparameters | None = None
    """Settings of the training."""


class JobSections(Spec):
    """Sections of a job's specification that OpenAI has no words for, under their own names."""

    data: DataOptions = DataOptions()
    """How the rows are read."""

    training: TrainingSpec = TrainingSpec()
    """Optimisation settings; what is given here is not to be given in OpenAI's fields, too."""

    resources: ResourcesSpec = ResourcesSpec()
    """What the job asks of the cluster."""

    registry: RegistrySpec = RegistrySpec()
    """Where the adapter is registered."""

    analysis: AnalysisSpec | None = None
    """Measure the geometry before and after; by default not."""

    tags: tuple[Label, ...] = Field((), max_length=16)
    """Words to find the job by."""

    priority: int = Field(0, ge=-100, le=100)
    """Place in the queue of its project: the higher comes first."""


class HypLoraOptions(JobSections, HypLoraSpec):
    """A HypLoRA adapter's fields, and beside them the sections of a job's specification."""


class LoraOptions(JobSections, LoraSpec):
    """The same for an adapter of plain LoRA."""


Options = Annotated[
    Annotated[HypLoraOptions, Tag("hyplora")] | Annotated[LoraOptions, Tag("lora")],
    Discriminator(method_of),
]


class Method(Spec):
    """How the model is tuned."""

    type: Literal["supervised"] = "supervised"
    """The one method of OpenAI's that there is here."""

    supervised: SupervisedMethod | None = None
    """Its settings."""

    hyplora: Options = HypLoraOptions()
    """The adapter to train, and whatever else OpenAI has no field for."""

    @field_validator("type", mode="before")
    @classmethod
    def _is_offered(cls, type_: object) -> object:
        if type_ in ("dpo", "reinforcement"):  # no set: it may be anything, also what has no hash
            raise ValueError(f"{type_} fine-tuning is not offered here; supervised is")
        return type_


class FineTuningJobCreate(Spec):
    """A fine-tune as OpenAI's clients ask for it."""

    model: str = Field(min_length=1, max_length=512)
    """The base model: a Hugging Face id, a folder on the workers or an MLflow URI."""

    training_file: DataSource
    """Id of an uploaded file, or any other source of rows that a job can name."""

    validation_file: DataSource | None = None
    """Held-out rows."""

    suffix: str | None = Field(None, pattern=NAME_PATTERN)
    """Name of the job and of the registered model; by default made from the base model's,
    and another for each job."""

    seed: int | None = Field(None, ge=0)
    """Seed of initialisation, data order and dropout; 0 by default."""

    metadata: dict[Label, MetadataValue] | None = Field(None, max_length=16)
    """Facts to find the job by."""

    method: Method = Method()
    """How the model is tuned."""

    hyperparameters: Hyperparameters | None = None
    """What older clients send in the place of `method.supervised.hyperparameters`."""

    integrations: None = None
    """None are offered: metrics are in MLflow, whose page the job names."""

    @field_validator("integrations", mode="before")
    @classmethod
    def _are_not_offered(cls, integrations: object) -> None:
        if integrations:
            raise ValueError("none are offered here; the job's metrics are in MLflow")

    @field_validator("model")
    @classmethod
    def _is_no_adapter(cls, model: str) -> str:
        if ModelId.parse(model):
            raise ValueError(
                "an adapter cannot be tuned further; name its base model, and a new adapter of it "
                "is trained"
            )
        return model

    @model_validator(mode="after")
    def _hyperparameters_are_given_once(self) -> Self:
        if (
            self.hyperparameters
            and self.method.supervised
            and self.method.supervised.hyperparameters
        ):
            raise ValueError(
                "hyperparameters: give them once, in method.supervised.hyperparameters"
            )
        return self

    def settings(self) -> tuple[str, Hyperparameters] | None:
        """The hyperparameters and the field that they are in."""
        if self.hyperparameters is not None:
            return "hyperparameters", self.hyperparameters
        supervised = self.method.supervised
        if supervised is None or supervised.hyperparameters is None:
            return None
        return "method.supervised.hyperparameters", supervised.hyperparameters
