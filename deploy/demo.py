"""The demo: fine-tune a real model on real word problems through every layer, and measure it.

Starts the embedded stack, submits a HypLoRA job by REST, follows it, pulls the adapter back from
the registry by its alias and compares exact-match accuracy on held-out problems.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from rich.console import Console
from rich.progress import track
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from deploy.demo_assets import DemoAssetError, ensure_assets
from deploy.demo_full import run_full_demo
from deploy.demo_jobs import (
    ALIAS,
    MAX_NEW_TOKENS,
    MODEL_NAME,
    DemoError,
    finetune_spec,
    run_job,
    upload_problems,
)
from deploy.demo_rows import WordProblem
from deploy.home import StackError, StackPorts
from deploy.local import LocalStack, terminate_as_interrupt
from service.answers import JobRead
from service.client import Client, ClientError
from workers.adapter import load_adapter
from workers.base_model import load_base_model, load_tokenizer
from workers.data import render_prompt
from workers.generate import generate_batch
from workers.rows import InstructionRow
from workers.tasks.numbers import is_correct

_NUM_EXAMPLES = 4
_BATCH_SIZE = 25
_SHORT = ("--max-new-tokens", str(MAX_NEW_TOKENS))


@dataclass(frozen=True)
class Accuracies:
    """Share of held-out problems answered exactly."""

    before: float
    few_shot: float
    after: float


@dataclass
class Examinee:
    """A model under examination on the held-out problems."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase

    def accuracy(
        self, problems: Sequence[WordProblem], label: str, examples: Sequence[WordProblem] = ()
    ) -> float:
        """Answer every problem greedily; an answer counts if its last number is right."""
        shots = [_row(example) for example in examples]
        prompts = [render_prompt(self.tokenizer, _row(problem), shots) for problem in problems]
        num_correct = 0
        for start in track(range(0, len(prompts), _BATCH_SIZE), label, transient=True):
            batch = slice(start, start + _BATCH_SIZE)
            answers = generate_batch(
                self.model, self.tokenizer, prompts[batch], MAX_NEW_TOKENS, _BATCH_SIZE
            )
            num_correct += sum(
                is_correct(answer, problem.answer)
                for answer, problem in zip(answers, problems[batch], strict=True)
            )
        return num_correct / len(problems)


def run_demo(home: Path, num_steps: int, num_held_out: int, console: Console) -> str:
    """Run the whole demo and return its machine-readable last line.

    Args:
        home: State folder of the embedded stack; the run can be looked at there afterwards.
        num_steps: Optimizer steps of the fine-tune.
        num_held_out: Problems to judge the adapter by.
        console: Where to tell what happens.

    Raises:
        DemoError: If the job did not succeed or the adapter did not improve the model.
    """
    started = time.monotonic()
    assets = ensure_assets(num_held_out, console)
    training, held_out = assets.training, assets.held_out
    tokenizer = load_tokenizer(str(assets.base_model))
    base = load_base_model(str(assets.base_model), "auto")
    examinee = Examinee(base, tokenizer)
    before = examinee.accuracy(held_out, "base model")
    few_shot = examinee.accuracy(held_out, "with four examples", training[:_NUM_EXAMPLES])
    console.print(f"base model: {before:.1%} right, with four examples {few_shot:.1%}")

    with LocalStack(home, StackPorts(0, 0, 0), [assets.base_model]) as stack:
        stack.start(console.print)
        with Client(stack.api_url, stack.token) as client:
            file_id = upload_problems(client, training, "asdiv-one-step.jsonl", console)
            job = run_job(client, finetune_spec(assets.base_model, file_id, num_steps), console)
        with tempfile.TemporaryDirectory() as folder:
            adapter = Path(folder) / "adapter"
            _hyplora(stack, "pull", f"{MODEL_NAME}@{ALIAS}", str(adapter))
            console.print(f"pulled models:/{MODEL_NAME}@{ALIAS} from the registry")
            _answer_one(stack, adapter, held_out[0], console)
            after = Examinee(load_adapter(base, adapter), tokenizer).accuracy(
                held_out, "with the adapter"
            )
    accuracies = Accuracies(before, few_shot, after)
    return _verdict(job, accuracies, time.monotonic() - started, console)


def _answer_one(stack: LocalStack, adapter: Path, problem: WordProblem, console: Console) -> None:
    """Answer one held-out problem in fresh processes, without and with the pulled adapter."""
    prompt = f"{problem.as_row()['instruction']}\n\n{problem.text}"
    tuned = _hyplora(stack, "generate", str(adapter), prompt, *_SHORT)
    base = _hyplora(stack, "generate", str(adapter), prompt, *_SHORT, "--no-adapter")
    console.print(f"[bold]{problem.text}[/bold]  (answer: {problem.answer:g})")
    console.print(f"  base model:   {base.strip()}", markup=False)
    console.print(f"  with HypLoRA: {tuned.strip()}", markup=False)


def _hyplora(stack: LocalStack, *arguments: str) -> str:
    """Run the CLI against the stack in a fresh process and return what it printed."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    environment = stack.client_environment()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"hyplora {arguments[0]} failed:\n{done.stderr.strip()}")
    return done.stdout


def _verdict(job: JobRead, accuracies: Accuracies, seconds: float, console: Console) -> str:
    """Describe the outcome; raises `DemoError` where training did not help."""
    console.print(
        f"exact matches on held-out problems: {accuracies.before:.1%} before, "
        f"{accuracies.few_shot:.1%} with four examples, [bold]{accuracies.after:.1%} after[/bold]"
    )
    if accuracies.after <= accuracies.before:
        raise DemoError("the adapter did not improve the model")
    assert job.model_version is not None, "a succeeded job has a model version"
    return (
        f"demo: ok job={job.id} model_version={job.model_version.version} "
        f"accuracy_before={accuracies.before:.3f} accuracy_few_shot={accuracies.few_shot:.3f} "
        f"accuracy_after={accuracies.after:.3f} seconds={seconds:.0f}"
    )


def _row(problem: WordProblem) -> InstructionRow:
    return InstructionRow.model_validate(problem.as_row())


def main() -> int:
    """Run the demo from the command line; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".hyplora/demo"))
    parser.add_argument("--steps", type=int, default=150, help="of the fine-tune")
    parser.add_argument("--full", action="store_true", help="evaluate, compare and analyze, too")
    parser.add_argument("--held-out", type=int, default=200, help="problems to judge by")
    options = parser.parse_args()
    console = Console()
    disable_progress_bar()
    try:
        with terminate_as_interrupt():
            run = run_full_demo if options.full else run_demo
            print(run(options.home, options.steps, options.held_out, console))  # noqa: T201
    except (DemoError, DemoAssetError, StackError, ClientError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
