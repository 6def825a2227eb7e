"""Fine-tunes in OpenAI's words as jobs, and what is said of such a job in OpenAI's words."""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from jobs.finetune_specs import FinetuneSpec
from service.errors import FieldError, ProblemError, SpecInvalidError
from service.openai.requests import FineTuningJobCreate, JobSections
from service.problems import explain_validation
from workers.specs import TrainingSpec

DEFAULT_LEARNING_RATE: float = TrainingSpec.model_fields["learning_rate"].default
"""What a learning rate multiplier of 1, or "auto", means."""

SECTIONS = frozenset(JobSections.model_fields)
"""Fields of `method.hyplora` that are none of the adapter's."""

IN_OPENAI_FIELDS = frozenset({"num_epochs", "batch_size", "learning_rate", "seed"})
"""Fields of `training` that OpenAI's clients have a field of their own for."""

_HYPERPARAMETERS = "method.supervised.hyperparameters"
_WORDS = (
    (r"data\.train\b", "training_file"),
    (r"data\.validation\b", "validation_file"),
    (r"training\.num_epochs\b", f"{_HYPERPARAMETERS}.n_epochs"),
    (r"training\.batch_size\b", f"{_HYPERPARAMETERS}.batch_size"),
    (r"training\.learning_rate\b", f"{_HYPERPARAMETERS}.learning_rate_multiplier"),
    (r"training\.seed\b", "seed"),
    (r"base_model\b", "model"),
    (r"^name(?=$|: )", "suffix"),
    (r"adapter\.(?=[a-z])", "method.hyplora."),
    (
        r"((?:data|training|resources|registry|analysis)(?:\.(?=[a-z])|(?=$|: )))",
        r"method.hyplora.\1",
    ),
)
"""Fields of a job's specification, and what OpenAI's clients call them."""


def spec_of(body: FineTuningJobCreate) -> FinetuneSpec:
    """The job that a request asks for; what it leaves open is as by default.

    Raises:
        SpecInvalidError: If it asks for one thing twice, or for what does not go together.
    """
    given = body.method.hyplora.model_dump(exclude_unset=True)
    sections = {name: value for name, value in given.items() if name in SECTIONS}
    document = sections | {
        "kind": "finetune",
        "name": body.suffix or _name_for(body.model),
        "metadata": body.metadata or {},
        "base_model": body.model,
        "adapter": {name: value for name, value in given.items() if name not in SECTIONS},
        "data": sections.get("data", {}) | _sources(body),
        "training": _training(body, sections.get("training", {})),
    }
    try:
        return FinetuneSpec.model_validate(document)
    except ValidationError as error:
        complaints = [each | {"loc": ("body", *each["loc"])} for each in error.errors()]
        raise explain_validation(RequestValidationError(complaints, body=document)) from error


@contextmanager
def in_openai_words() -> Iterator[None]:
    """Let problems name fields as OpenAI's clients do."""
    try:
        yield
    except ProblemError as error:
        error.args = (_translated(str(error)),)
        error.errors = tuple(
            each.model_copy(
                update={"field": _translated(each.field), "message": _translated(each.message)}
            )
            for each in error.errors
        )
        raise


def _sources(body: FineTuningJobCreate) -> dict[str, Any]:
    sources = {"train": body.training_file, "validation": body.validation_file}
    return {field: source for field, source in sources.items() if source is not None}


def _training(body: FineTuningJobCreate, section: Mapping[str, Any]) -> dict[str, Any]:
    """The section `training`, with what OpenAI's fields say."""
    asked: dict[str, tuple[str, Any]] = {"seed": ("seed", body.seed)}
    if (settings := body.settings()) is not None:
        place, chosen = settings
        multiplier = chosen.learning_rate_multiplier
        rate = multiplier if multiplier == "auto" else multiplier * DEFAULT_LEARNING_RATE
        asked |= {
            "num_epochs": (f"{place}.n_epochs", chosen.n_epochs),
            "batch_size": (f"{place}.batch_size", chosen.batch_size),
            "learning_rate": (f"{place}.learning_rate_multiplier", rate),
        }
    training = dict(section)
    for name, (field, value) in asked.items():
        if value is None or value == "auto":
            continue
        if name in section:
            message = f"method.hyplora.training.{name} says it, too; give one of them"
            raise SpecInvalidError(
                f"{field}: {message}", [FieldError(field=field, message=message)]
            )
        training[name] = value
    return training


def _name_for(model: str) -> str:
    """What a job is called whose user gave no suffix, and its model, which no other job shares."""
    last = model.rstrip("/").rpartition("/")[2]
    base = re.sub(r"[^A-Za-z0-9._-]", "-", last).lstrip("._-")[:55] or "model"
    return f"{base}-{secrets.token_hex(4)}"


def _translated(text: str) -> str:
    for pattern, words in _WORDS:
        text = re.sub(rf"(?<![\w.]){pattern}", words, text)
    return text
