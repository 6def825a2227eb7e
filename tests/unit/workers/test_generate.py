import io
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers import generate
from workers.adapter import build_adapter, save_adapter
from workers.base_model import load_base_model
from workers.errors import AdapterUnusableError, BaseModelNotFoundError, RowTooLongError
from workers.generate import generate_batch, load_with_adapter, main, render_user_prompt
from workers.specs import HypLoraSpec

QUESTIONS = ["2 + 2 =", "How many?", "", "Count up from one hundred: 100, 101,", "9", "2 + 2 ="]


@pytest.fixture(scope="module")
def adapter_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("adapter")
    model = load_base_model(str(tiny_model_dir))
    save_adapter(build_adapter(model, HypLoraSpec(init_weights=False, curvature=0.5)), folder)
    return folder


@pytest.fixture(scope="module", params=["base", "adapted"])
def model(request: pytest.FixtureRequest, tiny_model_dir: Path, adapter_dir: Path) -> object:
    adapter = adapter_dir if request.param == "adapted" else None
    return load_with_adapter(str(tiny_model_dir), adapter)[0]


@pytest.fixture(scope="module")
def prompts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [render_user_prompt(tokenizer, question) for question in QUESTIONS]


def answer_alone(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> str:
    """What transformers answers to one prompt, without padding."""
    tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    output = model.generate(input_ids=tokens, do_sample=False, max_new_tokens=20)
    return tokenizer.decode(output[0, tokens.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
def test_batches_answer_as_one_prompt_at_a_time_in_the_order_of_the_prompts(
    batch_size: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
) -> None:
    expected = [answer_alone(model, tokenizer, prompt) for prompt in prompts]
    assert len(set(expected)) > 2  # the comparison would say nothing of like answers
    assert generate_batch(model, tokenizer, prompts, 20, batch_size) == expected


def test_an_adapter_changes_the_answers(
    tiny_model_dir: Path,
    adapter_dir: Path,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
) -> None:
    base, _ = load_with_adapter(str(tiny_model_dir), None)
    adapted, _ = load_with_adapter(str(tiny_model_dir), adapter_dir)
    assert generate_batch(base, tokenizer, prompts, 20) != generate_batch(
        adapted, tokenizer, prompts, 20
    )


def test_an_answer_ends_with_the_turn(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase, prompts: list[str]
) -> None:
    model, _ = load_with_adapter(str(tiny_model_dir), None)
    (whole,) = generate_batch(model, tokenizer, prompts[:1], 20)
    last = next(letter for letter in whole[1:] if letter.isascii() and letter.isalnum())
    ends_here = tokenizer.convert_tokens_to_ids(last)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, ends_here]
    (ended,) = generate_batch(model, tokenizer, prompts[:1], 20)
    assert ended == whole[: whole.index(last) + 1]


def test_no_prompts_have_no_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert generate_batch(model, tokenizer, []) == []


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str]
) -> None:
    too_long = [prompts[0], prompts[3] * 3]
    with pytest.raises(RowTooLongError, match=r"prompt 2 has \d+ tokens.* context of 128"):
        generate_batch(model, tokenizer, too_long, 1)


def test_an_answer_ends_where_the_context_does(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str]
) -> None:
    room = 128 - len(tokenizer(prompts[3], add_special_tokens=False)["input_ids"])
    unbounded, bounded = (
        generate_batch(model, tokenizer, prompts[3:4], length) for length in (10_000, room)
    )
    assert unbounded == bounded


def test_the_base_model_is_the_adapters_own_unless_another_is_named(
    tiny_model_dir: Path, adapter_dir: Path
) -> None:
    model, _ = load_with_adapter(None, adapter_dir)
    assert model.get_base_model().name_or_path == str(tiny_model_dir)


def test_a_missing_adapter_is_refused_before_the_base_model_is_loaded(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "load_base_model", None)
    with pytest.raises(AdapterUnusableError, match=r"no adapter_config\.json"):
        load_with_adapter(str(tiny_model_dir), tmp_path)


def test_the_command_answers_its_arguments(
    adapter_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--adapter", str(adapter_dir), "--max-new-tokens", "4", "--json", "2 + 2 =", "9"]
    assert main(arguments) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prompt"] for line in lines] == ["2 + 2 =", "9"]
    assert all(line["answer"] for line in lines)


def test_the_command_answers_standard_input_line_by_line(
    tiny_model_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("2 + 2 =\n\n9\n"))
    assert main(["--base-model", str(tiny_model_dir), "--max-new-tokens", "4", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prompt"] for line in lines] == ["2 + 2 =", "9"]


def test_the_command_says_what_is_wrong_without_a_stack_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--base-model", "/no/such/folder", "hello"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: base_model '/no/such/folder' does not exist")
    assert "Traceback" not in captured.err


def test_the_command_needs_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["hello"])
    assert "--base-model" in capsys.readouterr().err


def test_loading_needs_a_base_model_or_an_adapter() -> None:
    with pytest.raises(ValueError, match="a base model, an adapter or both"):
        load_with_adapter(None, None)


def test_the_recorded_base_model_may_be_gone(adapter_dir: Path, tmp_path: Path) -> None:
    config = json.loads((adapter_dir / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/gone"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelNotFoundError, match="'/gone'"):
        load_with_adapter(None, tmp_path)
