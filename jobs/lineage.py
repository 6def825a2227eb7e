"""Where a model version comes from: enough to make it again."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from jobs.finetune_specs import FinetuneSpec
from jobs.tickets import JobTicket, RunTag
from workers.base_model import digest
from workers.specs import HubDatasetSpec, HypLoraSpec


def lineage_of(ticket: JobTicket, spec: FinetuneSpec, outcome: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a model version.

    Args:
        ticket: The job's.
        spec: The fine-tune that made the adapter.
        outcome: Fields of `workers.train_loop.TrainResult`; what is missing or None is left out.
    """
    digests = {}
    for field, source in spec.data.sources().items():
        role = field.removeprefix("data.")
        if isinstance(source, HubDatasetSpec):
            digests[f"{role}_source"] = source.model_dump_json(exclude_none=True)
        elif source in ticket.files:
            digests[f"{role}_sha256"] = ticket.files[source].sha256
        else:
            digests[f"{role}_source"] = source
    scores = {
        name: f"{outcome[name]:.6g}"
        for name in ("train_loss", "eval_loss", "steps", "num_trainable_parameters")
        if outcome.get(name) is not None
    }
    return {
        RunTag.JOB_ID: ticket.job_id,
        "base_model": spec.base_model,
        "base_model_digest": digest(spec.base_model),
        "spec_sha256": hashlib.sha256(spec.model_dump_json().encode()).hexdigest(),
        "seed": str(spec.training.seed),
        **_adapter(spec),
        "code_version": importlib.metadata.version("hyplora"),
        **digests,
        **scores,
    }


def _adapter(spec: FinetuneSpec) -> dict[str, str]:
    """What an adapter is chosen by; a curvature that is learned began at this K."""
    adapter = spec.adapter
    tags = {"method": adapter.method, "rank": str(adapter.r)}
    if isinstance(adapter, HypLoraSpec):
        tags["curvature"] = f"{adapter.curvature:.6g}"
    return tags
