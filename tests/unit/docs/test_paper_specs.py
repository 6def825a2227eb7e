"""The specs in docs/examples/paper are valid, and come to what a dry run of real sizes says.

The models here are configurations of the real dimensions with a byte-level tokenizer: a dry run
builds on the meta device and never reads a weight. Counts are computed by hand from the dimensions.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from transformers import Gemma3Config, GemmaConfig, LlamaConfig, PreTrainedConfig, Qwen2Config

from jobs.compare_specs import CompareSpec
from jobs.dry_run import answer_to
from jobs.evaluate_specs import EvaluateSpec
from jobs.specs import JobSpec, file_ids
from jobs.tickets import DryRunTicket, FileRef
from service.cli.spec_file import local_data, read_spec_file, with_file_ids
from tests.tiny_model import write_addition_rows, write_tokenizer
from workers.specs import HypLoraSpec, LoraSpec

FOLDER = Path(__file__).parents[3] / "docs/examples/paper"
README = (FOLDER / "README.md").read_text()
FILES = sorted(FOLDER.glob("*.yaml"))
SUITES = {
    "arithmetic": ("mawps", "svamp", "gsm8k", "aqua"),
    "commonsense": ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_e", "arc_c", "obqa"),
}
METHODS = ("lora", "dora", "hyplora", "hyplora-k0.5", "hyplora-stereographic")
NUM_ROWS, HELD_OUT, RANK = 256, 120, 32
NODE = {"CPU": 64.0, "GPU": 8.0, "memory": 1024.0 * 2**30}


@dataclass(frozen=True)
class Shape:
    """The dimensions of a model that decide how large its adapters are, and its size on the hub."""

    hidden: int
    mlp: int
    queries: int
    keys: int
    layers: int
    num_parameters: int

    @property
    def adapted(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of q, k, v, up and down."""
        attention = [(self.hidden, width) for width in (self.queries, self.keys, self.keys)]
        return (*attention, (self.hidden, self.mlp), (self.mlp, self.hidden))

    def num_trainable(self, method: str) -> int:
        """Parameters of a method's adapter at rank 32."""
        low_rank = self.layers * sum(RANK * (width + height) for width, height in self.adapted)
        if method == "lora":
            return low_rank
        if method == "dora":  # a magnitude for each output
            return low_rank + self.layers * sum(height for _, height in self.adapted)
        return low_rank + 2 * self.layers * len(self.adapted)  # K and norm scale of each layer


SHAPES = {
    "llama-7b": Shape(4096, 11008, 4096, 4096, 32, 6_738_415_616),
    "llama-13b": Shape(5120, 13824, 5120, 5120, 40, 13_015_864_320),
    "gemma-7b": Shape(3072, 24576, 4096, 4096, 28, 8_537_680_896),
    "llama3-8b": Shape(4096, 14336, 4096, 1024, 32, 8_030_261_248),
    "gemma3-4b": Shape(2560, 10240, 2048, 1024, 34, 4_300_079_472),
    "qwen2.5-7b": Shape(3584, 18944, 3584, 512, 28, 7_615_616_512),
}
PUBLISHED_PERCENT = {
    ("llama-7b", "lora"): 0.83,
    ("llama-7b", "dora"): 0.84,
    ("llama-13b", "lora"): 0.67,
    ("llama-13b", "dora"): 0.68,
    ("llama3-8b", "lora"): 0.70,
    ("llama3-8b", "dora"): 0.71,
}
"""Of the same rank and layers, by DoRA's table of results (arXiv:2402.09353)."""


def config_of(model: str) -> PreTrainedConfig:
    """A configuration as the hub has it, as far as sizes go."""
    shape = SHAPES[model]
    sizes: dict[str, Any] = {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
    }
    match model:
        case "llama-7b":
            return LlamaConfig(vocab_size=32000, num_attention_heads=32, **sizes)
        case "llama-13b":
            return LlamaConfig(vocab_size=32000, num_attention_heads=40, **sizes)
        case "llama3-8b":
            return LlamaConfig(
                vocab_size=128256, num_attention_heads=32, num_key_value_heads=8, **sizes
            )
        case "gemma-7b":
            sizes |= {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256}
            return GemmaConfig(vocab_size=256000, **sizes)
        case "qwen2.5-7b":
            return Qwen2Config(
                vocab_size=152064, num_attention_heads=28, num_key_value_heads=4, **sizes
            )
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
    vision |= {"num_attention_heads": 16, "image_size": 896, "patch_size": 14}
    return Gemma3Config(
        text_config=sizes | {"vocab_size": 262208, "sliding_window": 1024},
        vision_config=vision | {"vision_use_head": False},
    )


def row_of(task: str) -> dict[str, str]:
    """A row in the form of LLM-Adapters."""
    if task in SUITES["arithmetic"][:3] or task in ("addsub", "multiarith", "singleeq"):
        return {"instruction": "How many are 2 + 2?", "output": "2 + 2 = 4", "answer": "4"}
    if task == "aqua":
        question = "2 + 2? Answer Choices: (A) 1 (B) 2 (C) 3 (D) 4 (E) 5"
        return {"instruction": question, "output": "The answer is (D).", "answer": "D"}
    if task == "boolq":
        question = "Please answer, question: is two a number?\n\nAnswer format: true/false"
        word = "true"
    else:
        label = {"piqa": "solution", "hellaswag": "ending", "winogrande": "option"}.get(
            task, "answer"
        )
        names = [f"{label}{number}" for number in range(1, 3 if task == "piqa" else 4)]
        names = names[:2] if task == "winogrande" else names
        options = " ".join(f"{name.capitalize()}: {name[-1]} apples" for name in names)
        question = (
            f"Please choose: Ann has _ apples.\n\n{options}\n\nAnswer format: {'/'.join(names)}"
        )
        word = names[0]
    return {
        "instruction": question, "output": f"the correct answer is {word}", "answer": word,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models without weights, and the rows that a user has made as the README says."""
    folder = tmp_path_factory.mktemp("paper")
    for model in SHAPES:
        config_of(model).save_pretrained(folder / model)
        write_tokenizer(folder / model)
        (folder / model / "model.safetensors").touch()
    data = folder / "data"
    data.mkdir()
    for name in re.findall(r"`data/(\w+)\.jsonl`", README):
        if name in ("math_10k", "commonsense_170k"):
            write_addition_rows(data / f"{name}.jsonl", num_rows=NUM_ROWS)
        else:
            (data / f"{name}.jsonl").write_text(json.dumps(row_of(name)) + "\n")
    return folder


def job(folder: Path, name: str) -> tuple[Any, dict[str, FileRef]]:
    """The spec of a file with its rows uploaded, as the CLI does it, and these by id."""
    written = replace(read_spec_file(FOLDER / f"{name}.yaml"), path=folder / f"{name}.yaml")
    paths = local_data(written)
    ids = {field: f"file-{number:016x}" for number, field in enumerate(paths)}
    files = {
        ids[field]: FileRef(uri=str(path), sha256="0" * 64, num_rows=NUM_ROWS)
        for field, path in paths.items()
    }
    uploaded = with_file_ids(written, ids).document
    spec = TypeAdapter(JobSpec).validate_python(uploaded)
    assert file_ids(spec).keys() == paths.keys()
    return spec, files


def comparison(folder: Path, model: str, suite: str = "arithmetic") -> CompareSpec:
    spec, _ = job(folder, f"{model}-{suite}")
    assert isinstance(spec, CompareSpec)
    return spec


def dry_run(spec: Any, files: dict[str, FileRef], model: Path) -> dict[str, Any]:
    here = spec.model_copy(update={"base_model": str(model)})
    used = {file_id: files[file_id] for file_id in file_ids(here).values()}
    answer = answer_to(DryRunTicket(spec=here, files=used), [NODE])
    assert "result" in answer, answer
    return dict(answer["result"])


def test_there_is_a_comparison_of_each_model_and_suite_and_an_evaluation_of_each_suite() -> None:
    comparisons = {f"{model}-{suite}" for model in SHAPES for suite in SUITES}
    assert {path.stem for path in FILES} == comparisons | {f"evaluate-{suite}" for suite in SUITES}


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_each_file_is_a_job_of_its_own_name_with_rows_that_the_readme_names(
    folder: Path, name: str
) -> None:
    spec, files = job(folder, name)
    assert spec.name == name
    assert len(files) == len(spec.sources())


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("model", SHAPES)
def test_each_comparison_has_the_papers_rows_and_hyper_parameters(
    folder: Path, model: str, suite: str
) -> None:
    spec = comparison(folder, model, suite)
    trained = {name: spec.training_spec(name, 3e-4, 0) for name in METHODS}
    alpha_of_hyplora = {"gemma3-4b": 32, "qwen2.5-7b": {"commonsense": 256}.get(suite, 128)}

    assert tuple(method.name for method in spec.methods) == METHODS
    assert tuple(task.name for task in spec.tasks) == SUITES[suite]
    assert spec.learning_rates == (3e-4,)
    for name, job in trained.items():
        training, adapter = job.training, job.adapter
        assert (training.num_epochs, training.batch_size, training.warmup_steps) == (3, 16, 100)
        assert (job.data.max_length, job.data.validation_rows) == (256, HELD_OUT)
        assert (adapter.r, adapter.dropout) == (RANK, 0.05)
        assert adapter.target_modules == ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
        if isinstance(adapter, LoraSpec):
            assert (adapter.alpha, adapter.use_dora) == (64, name == "dora")
            continue
        assert isinstance(adapter, HypLoraSpec)
        is_stereographic = name == "hyplora-stereographic"
        assert adapter.projection == ("stereographic" if is_stereographic else "lorentz")
        assert adapter.alpha == (256 if is_stereographic else alpha_of_hyplora.get(model, 128))
        assert adapter.curvature == (1.0 if name == "hyplora" else 0.5)
        assert not adapter.rescale_output


@pytest.mark.parametrize("suite", SUITES)
def test_each_evaluation_asks_the_tasks_of_its_suite_and_can_be_placed(
    folder: Path, suite: str
) -> None:
    spec, files = job(folder, f"evaluate-{suite}")
    assert isinstance(spec, EvaluateSpec)
    result = dry_run(spec, files, folder / "llama-7b")
    assert result["num_questions"] == result["num_evaluations"] == len(spec.tasks)
    assert result["num_parameters"] == SHAPES["llama-7b"].num_parameters
    assert result["placement"] == {"possible": True, "reason": None, "device": "gpu"}
    assert {task.name for task in spec.tasks} >= set(SUITES[suite])
    assert spec.max_new_tokens == 512


QUICK = {("llama-7b", "lora")}
DRY_RUNS = [
    pytest.param(
        model,
        method,
        marks=[] if (model, method) in QUICK else [pytest.mark.slow],
        id=f"{model}-{method}",
    )
    for model in SHAPES
    for method in METHODS
]


@pytest.mark.parametrize(("model", "method"), DRY_RUNS)
def test_a_dry_run_of_each_row_finds_its_place_memory_and_parameters(
    folder: Path, model: str, method: str
) -> None:
    spec, files = job(folder, f"{model}-arithmetic")
    if method == "lora":  # the first training, which stands for all in the comparison's own
        result = dry_run(spec, files, folder / model)
        assert (result["num_trainings"], result["num_questions"]) == (15, len(spec.tasks))
    else:
        result = dry_run(spec.training_spec(method, 3e-4, 0), files, folder / model)
    num_base = result["num_parameters"] - result["num_trainable_parameters"]
    base_bytes = 2 * num_base

    assert result["placement"] == {"possible": True, "reason": None, "device": "gpu"}
    assert result["num_trainable_parameters"] == SHAPES[model].num_trainable(method)
    assert num_base == SHAPES[model].num_parameters
    assert result["num_held_out_rows"] == HELD_OUT
    assert result["steps"] == -(-3 * (NUM_ROWS - HELD_OUT) // 16)
    assert result["memory"]["base_model"] == pytest.approx(base_bytes, rel=0.01)
    assert result["memory"]["total"] > base_bytes + 16 * result["num_trainable_parameters"]
    percent = 100 * result["num_trainable_parameters"] / result["num_parameters"]
    if published := PUBLISHED_PERCENT.get((model, method)):
        assert round(percent, 2) == published
    if method == "lora":
        count = f"{result['num_trainable_parameters']:,}"
        assert f"| {count} | {percent:.2f} % |" in README
