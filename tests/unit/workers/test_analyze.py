"""Looking at tiny models of every kind, with an adapter and without, part by part."""

import json
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from hyplora.errors import AnalysisError
from tests.tiny_model import CHAT_TEMPLATE, CONTEXT_LENGTH
from workers.adapter import build_adapter, save_adapter
from workers.analysis_spec import AnalysisSpec
from workers.analyze import Analyst, Subject
from workers.base_model import load_base_model
from workers.data import render_prompt
from workers.errors import AdapterUnusableError, DataInvalidError
from workers.rows import InstructionRow
from workers.specs import AdapterSpec, HypLoraSpec, LoraSpec

CPU = torch.device("cpu")
SPEC = AnalysisSpec(num_prompts=4, num_base_points=1, num_resamples=20)
KINDS = ["gemma", "gpt2", "gpt_neox", "llama", "mistral", "phi", "qwen2", "qwen3"]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
}

Look = Callable[..., Analyst]


@pytest.fixture
def look(tiny_model_dir: Path, rows: Path) -> Look:
    """Make an analyst of the tiny model; fields of its subject are given by name."""

    def make(spec: AnalysisSpec = SPEC, **fields: Any) -> Analyst:
        subject: dict[str, Any] = {
            "base_model": str(tiny_model_dir),
            "adapter": None,
            "data": rows.as_uri(),
            "files": {},
            "columns": {},
            "chat_template": None,
        }
        return Analyst(Subject(**(subject | fields)), spec, CPU)

    return make


@pytest.fixture
def varied_rows(tmp_path: Path) -> Path:
    """Rows of ninety characters, some of them frequent and many rare."""
    characters = string.digits + string.ascii_letters + string.punctuation
    weights = [1 / rank for rank in range(1, len(characters) + 1)]
    draw = random.Random(0).choices
    path = tmp_path / "varied.jsonl"
    texts = ("".join(draw(characters, weights, k=40)) for _ in range(60))
    path.write_text("".join(json.dumps({"instruction": t, "output": "1"}) + "\n" for t in texts))
    return path


def write_adapter(folder: Path, base_model: str | Path, spec: AdapterSpec) -> str:
    torch.manual_seed(0)
    model: PeftModel = build_adapter(load_base_model(str(base_model)), spec)
    save_adapter(model, folder)
    return str(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_measured_on_every_kind_of_base_model(
    kind: str, look: Look, tokenizer: PreTrainedTokenizerBase, varied_rows: Path, tmp_path: Path
) -> None:
    special = {f"{name}_token_id": index for index, name in enumerate(("pad", "bos", "eos"))}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **SIZES, **special)
    base = tmp_path / "base"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    adapter = write_adapter(tmp_path / "adapter", base, HypLoraSpec(r=2, init_weights=False))
    analyst = look(base_model=str(base), adapter=adapter, data=varied_rows.as_uri())
    delta = analyst.hyperbolicity()
    assert delta.hidden.num_clouds == delta.embeddings.num_clouds == SPEC.num_prompts
    assert delta.adapter_effect is not None
    assert delta.adapter_effect.mean != 0
    assert len({layer.name for layer in analyst.adapter_effect().layers}) >= 8
    assert analyst.power_law().num_values == analyst.norms().num_tokens > 4
    assert len(analyst.word_groups()) == 4


def test_prompts_are_laid_out_as_in_training(
    look: Look, tokenizer: PreTrainedTokenizerBase, rows: Path
) -> None:
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    laid_out = [render_prompt(tokenizer, InstructionRow.model_validate(line)) for line in lines]
    prompts = look(AnalysisSpec(num_prompts=100)).prompts
    assert tokenizer.batch_decode(prompts) == laid_out
    drawn = look(AnalysisSpec(num_prompts=5, seed=1)).prompts
    assert len(drawn) == 5
    assert drawn == [prompt for prompt in prompts if prompt in drawn]
    assert drawn != look(AnalysisSpec(num_prompts=5, seed=2)).prompts


def test_tokens_are_counted_in_what_rows_say_and_not_in_their_layout(
    look: Look, tokenizer: PreTrainedTokenizerBase, rows: Path
) -> None:
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    said = "".join(line["instruction"] + line["output"] for line in lines)
    counts = look().token_counts
    assert counts[tokenizer.convert_tokens_to_ids("+")] == said.count("+")
    assert counts[tokenizer.convert_tokens_to_ids("<|start|>")] == 0
    assert int(counts.sum()) == len(said)


def test_a_lora_adapter_has_a_before_and_after_and_no_gains(
    look: Look, tiny_model_dir: Path, tmp_path: Path
) -> None:
    spec = LoraSpec(r=2, init_weights=False)
    analyst = look(adapter=write_adapter(tmp_path / "lora", tiny_model_dir, spec))
    assert analyst.hyperbolicity().hidden_without_adapter is not None
    with pytest.raises(AnalysisError, match="the adapter is LORA"):
        analyst.adapter_effect()
    with pytest.raises(AnalysisError, match="there is no adapter"):
        look().adapter_effect()


def test_an_adapters_own_layout_is_used_unless_another_is_asked_for(
    look: Look, tiny_model_dir: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_model_dir, HypLoraSpec(r=2))
    template = CHAT_TEMPLATE.replace("assistant", "helper")
    (tmp_path / "adapter" / "chat_template.jinja").write_text(template)
    own = look(adapter=adapter).prompts[0]
    other = look(adapter=adapter, chat_template="plain").prompts[0]
    assert tokenizer.decode(own).endswith("<|start|>helper\n")
    assert tokenizer.decode(other).endswith("### Response:\n")


def test_prompts_beyond_the_context_are_left_out_and_counted(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    lengths = [3, CONTEXT_LENGTH, 5]
    lines = [{"instruction": "a" * length, "output": "b"} for length in lengths]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    analyst = look(data=path.as_uri())
    assert analyst.about_prompts() == (
        "questions of 2 of 3 rows; 1 longer than the model's context are left out"
    )
    path.write_text(json.dumps(lines[1]) + "\n")
    with pytest.raises(AnalysisError, match="all 1 prompts are longer"):
        look(data=path.as_uri()).hyperbolicity()


def test_rows_and_adapters_that_cannot_be_used_are_named(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"instruction": "a"}\n')
    with pytest.raises(DataInvalidError, match="data, line 1"):
        look(data=path.as_uri()).token_counts  # noqa: B018
    with pytest.raises(AdapterUnusableError, match="nowhere"):
        look(adapter="/nowhere/adapter").hyperbolicity()
