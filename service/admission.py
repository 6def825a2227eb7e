"""Whether a spec may become a job: it reads what jobs may read, and holds nothing secret."""

import asyncio
import re
from collections.abc import Iterator, Sequence

from jobs.model_references import model_uris
from jobs.specs import JobSpec, file_ids
from service.errors import (
    FieldError,
    ReferenceNotAllowedError,
    SecretInSpecError,
    SpecInvalidError,
)
from workers.reach import Reach

_SECRETS = {
    "an API key of this service": re.compile(r"hyp_[0-9a-f]{16}_[A-Za-z0-9_-]{43}"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "an access key of AWS": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a token of GitHub": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,})"),
    "an API key of OpenAI": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"\w://[^\s/@:]*:[^\s/@]+@"),
}
"""Forms of what is often pasted in the wrong place."""


async def require_admissible(spec: JobSpec, reach: Reach) -> None:
    """Refuse a spec that must not become a job.

    Args:
        spec: The job's.
        reach: What jobs may read.

    Raises:
        ReferenceNotAllowedError: If it names a base model, an adapter or rows that they may not.
        SecretInSpecError: If one of its texts has the form of a secret.
        SpecInvalidError: If one of its texts holds what databases cannot keep.
    """
    texts = list(_texts(spec.model_dump(mode="json")))
    _require_no_nul(texts)
    _require_no_secret(texts)
    refusals = await asyncio.to_thread(_refusals, spec, reach)  # looks where links lead
    if refusals:
        sentences = "; ".join(f"{each.field}: {each.message}" for each in refusals)
        raise ReferenceNotAllowedError(sentences, refusals)


def _refusals(spec: JobSpec, reach: Reach) -> list[FieldError]:
    uploaded = file_ids(spec)
    given: dict[str, tuple[str, str | None]] = {}
    for field, reference in model_uris(spec).items():
        is_base = field == "base_model"
        refuse = reach.refusal_of_base_model if is_base else reach.refusal_of_adapter
        given[field] = (reference, refuse(reference))
    for field, source in spec.sources().items():
        if field not in uploaded:
            value = source if isinstance(source, str) else source.dataset
            given[field] = (value, reach.refusal_of_source(source))
    return [
        FieldError(field=field, value=value, message=refusal)
        for field, (value, refusal) in given.items()
        if refusal is not None
    ]


def _require_no_nul(texts: Sequence[tuple[str, str]]) -> None:
    for field, text in texts:
        if "\0" in text:
            message = "holds a NUL character (\\u0000)"
            error = FieldError(field=field, message=message)
            raise SpecInvalidError(f"{field}: {message}", [error])


def _require_no_secret(texts: Sequence[tuple[str, str]]) -> None:
    found = [
        FieldError(field=field, message=f"looks like {what}")
        for field, text in texts
        for what, form in _SECRETS.items()
        if form.search(text)
    ]
    if found:
        raise SecretInSpecError(
            f"{found[0].field} {found[0].message}; a specification is shown to everyone who sees "
            "the job: leave it out, and replace it, since it has been sent",
            found,
        )


def _texts(node: object, field: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a document, keys too, with its field."""
    if isinstance(node, str):
        yield field, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield field or "body", key
            yield from _texts(value, f"{field}.{key}".lstrip("."))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _texts(value, f"{field}.{number}".lstrip("."))
