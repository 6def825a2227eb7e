"""The full demo: a fine-tune, then its evaluation, a comparison of methods and an analysis.

Each is one REST call to the embedded stack, on a real model and real word problems.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.demo_assets import DemoAssets, ensure_assets
from deploy.demo_jobs import (
    ALIAS,
    MAX_NEW_TOKENS,
    MODEL_NAME,
    TWO_CORES,
    DemoError,
    finetune_spec,
    run_job,
    short_training,
    upload_problems,
)
from deploy.home import StackPorts
from deploy.local import LocalStack
from service.client import Client

_PROVEN = "proven"
_TUNED = "tuned"


def run_full_demo(home: Path, num_steps: int, num_held_out: int, console: Console) -> str:
    """Run the full demo and return its machine-readable last line.

    Args:
        home: State folder of the embedded stack; the runs can be looked at there afterwards.
        num_steps: Optimizer steps of the fine-tune; the trainings of the comparison have a sixth.
        num_held_out: Problems to evaluate by; the comparison asks a quarter of them.
        console: Where to tell what happens.

    Raises:
        DemoError: If a job did not succeed or the adapter did not improve the model.
    """
    started = time.monotonic()
    assets = ensure_assets(num_held_out, console)
    with LocalStack(home, StackPorts(0, 0, 0), [assets.base_model]) as stack:
        stack.start(console.print)
        with Client(stack.api_url, stack.token) as client:
            jobs = _Jobs(client, assets, console)
            ids = [jobs.finetune(num_steps)]
            evaluated, accuracies = jobs.evaluate()
            ids += [evaluated, jobs.compare(max(1, num_steps // 6)), jobs.analyze()]
    before, after = accuracies["base"], accuracies[_TUNED]
    if after <= before:
        raise DemoError("the adapter did not improve the model")
    return (
        f"demo-full: ok jobs={','.join(ids)} accuracy_before={before:.3f} "
        f"accuracy_after={after:.3f} seconds={time.monotonic() - started:.0f}"
    )


class _Jobs:
    """The jobs of the demo, one after another."""

    def __init__(
        self,
        client: Client,
        assets: DemoAssets,
        console: Console,
    ) -> None:
        self._client = client
        self._base_model = assets.base_model
        self._console = console
        self._num_held_out = len(assets.held_out)
        self._training = upload_problems(client, assets.training, "asdiv-training.jsonl", console)
        self._held_out = upload_problems(client, assets.held_out, "asdiv-held-out.jsonl", console)

    def finetune(self, num_steps: int) -> str:
        """Train and register an adapter."""
        return self._run(finetune_spec(self._base_model, self._training, num_steps))

    def evaluate(self) -> tuple[str, dict[str, float]]:
        """Ask base model and adapter; return the accuracies by model."""
        job_id = self._run(
            {
                "kind": "evaluate",
                "models": ["base", {"name": _TUNED, "adapter": f"models:/{MODEL_NAME}@{ALIAS}"}],
                "tasks": [self._task()],
                "max_new_tokens": MAX_NEW_TOKENS,
                "promote_if_better": {"alias": _PROVEN},
            }
        )
        report = self._client.report(job_id)
        return job_id, {each["model"]: each["value"] for each in report["result"]["scores"]}

    def compare(self, num_steps: int) -> str:
        """Compare HypLoRA with LoRA, on equal budgets."""
        return self._run(
            {
                "kind": "compare",
                "methods": ["base", "lora", "hyplora"],
                "adapter": {"r": 8, "alpha": 16},
                "data": {"train": self._training, "validation_rows": 40},
                "training": short_training(num_steps),
                "learning_rates": [3e-4, 1e-3],
                "seeds": [0, 1],
                "tasks": [self._task() | {"max_rows": max(2, self._num_held_out // 4)}],
                "max_new_tokens": MAX_NEW_TOKENS,
            }
        )

    def analyze(self) -> str:
        """Measure the geometry of the model before and after the adapter."""
        return self._run(
            {
                "kind": "analyze",
                "model": {"name": _TUNED, "adapter": f"models:/{MODEL_NAME}@{ALIAS}"},
                "data": self._training,
                "analysis": {"num_prompts": 50},
            }
        )

    def _task(self) -> dict[str, Any]:
        return {"name": "asdiv", "scorer": {"kind": "number"}, "data": self._held_out}

    def _run(self, spec: Mapping[str, Any]) -> str:
        common = {
            "name": f"{MODEL_NAME}-{spec['kind']}",
            "base_model": str(self._base_model),
            "resources": TWO_CORES,
        }
        return run_job(self._client, common | dict(spec), self._console).id
