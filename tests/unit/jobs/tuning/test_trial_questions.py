"""What a trial's answers are worth, on a model in memory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from jobs.search_specs import SearchSpec
from jobs.tickets import FileRef
from jobs.tuning.trial_questions import TrialQuestions
from workers.adapter import build_adapter
from workers.base_model import load_base_model, load_tokenizer
from workers.chat_templates import set_chat_template
from workers.data import encode, end_of_turn_id, render
from workers.errors import DataInvalidError
from workers.generate import MAX_NEW_TOKENS, generate_batch
from workers.specs import HypLoraSpec

TRAIN_ID, EXAM_ID = f"file-{0:016x}", f"file-{1:016x}"
QUESTIONS = ["2 + 3 =", "4 + 4 =", "9 + 1 ="]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> PeftModel:
    torch.manual_seed(1)
    base = load_base_model(str(tiny_model_dir))
    return build_adapter(base, HypLoraSpec(init_weights=False, curvature=0.5)).eval()


def questions_with(tiny_model_dir: Path, path: Path, rows: list[dict[str, Any]]) -> TrialQuestions:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = SearchSpec.model_validate(
        {
            "kind": "search",
            "name": "hunt",
            "base_model": str(tiny_model_dir),
            "data": {"train": TRAIN_ID, "chat_template": "plain"},
            "space": {"adapter.r": {"choice": [4, 8]}},
            "tasks": [{"name": "exam", "scorer": {"kind": "exact"}, "data": EXAM_ID}],
            "objectives": [{"metric": "accuracy/exam", "mode": "max"}, {"metric": "nll/exam"}],
        }
    )
    return TrialQuestions(
        spec, {EXAM_ID: FileRef(uri=str(path), sha256="0" * 64, num_rows=len(rows))}
    )


def test_accuracy_and_likelihood_are_those_of_the_model_asked_by_hand(
    model: PeftModel, tiny_model_dir: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(tiny_model_dir))
    set_chat_template(tokenizer, "plain")
    prompts = [render(tokenizer, [{"role": "user", "content": q}]) for q in QUESTIONS]
    own = generate_batch(model, tokenizer, prompts, MAX_NEW_TOKENS)
    golds = [own[0].strip(), "8", "10"]
    rows = [_row(question, gold) for question, gold in zip(QUESTIONS, golds, strict=True)]

    found = questions_with(tiny_model_dir, tmp_path / "exam.jsonl", rows).ask(model, lambda: False)

    nlls = []
    for prompt, gold in zip(encode(tokenizer, prompts), encode(tokenizer, golds), strict=True):
        answer = [*gold, end_of_turn_id(tokenizer)]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
        log_p = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        nlls.append(float(-log_p[torch.arange(len(answer)), torch.tensor(answer)].mean()))
    assert found == {
        "accuracy/exam": pytest.approx(1 / 3),
        "nll/exam": pytest.approx(sum(nlls) / 3, rel=1e-4),
    }


def test_a_trial_that_is_cancelled_while_it_answers_has_no_scores(
    model: PeftModel, tiny_model_dir: Path, tmp_path: Path
) -> None:
    asked = questions_with(
        tiny_model_dir, tmp_path / "exam.jsonl", [_row(each, "5") for each in QUESTIONS]
    )
    assert asked.ask(model, lambda: True) is None


def test_a_row_that_cannot_be_asked_is_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataInvalidError, match=r"task exam \(tasks\.0\.data\), line 1"):
        questions_with(tiny_model_dir, tmp_path / "exam.jsonl", [{"instruction": "2 + 3 ="}])


def _row(question: str, gold: str) -> dict[str, Any]:
    return {"instruction": question, "output": gold}
