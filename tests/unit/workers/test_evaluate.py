from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.adapter import build_adapter
from workers.base_model import load_base_model
from workers.data import render
from workers.errors import AdapterUnusableError, DataInvalidError, PredictionsUnusableError
from workers.evaluate import EvaluationMethod, Progress, Shard, TaskQuestions, evaluate
from workers.evaluation_result import EvaluationResult, summarize_predictions
from workers.generate import generate_batch
from workers.predictions import merge_predictions, read_predictions
from workers.specs import HypLoraSpec
from workers.tasks.few_shot import with_shots
from workers.tasks.registry import task_named
from workers.tasks.task import Question

SUMS = task_named("addsub")
SENTENCES = task_named("winogrande")
METHOD = EvaluationMethod(max_new_tokens=12)
OPTIONS = EvaluationMethod(mode="likelihood")


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> PeftModel:
    torch.manual_seed(1)
    base = load_base_model(str(tiny_model_dir))
    return build_adapter(base, HypLoraSpec(init_weights=False, curvature=0.5)).eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "predictions.jsonl"


def sums(num_rows: int, first: int = 0) -> list[Question]:
    rows = [(first + number, number + 1) for number in range(num_rows)]
    return [
        SUMS.question({"instruction": f"{a} + {b} =", "answer": a + b}, line)
        for line, (a, b) in enumerate(rows, start=1)
    ]


def sentences(num_rows: int) -> list[Question]:
    return [
        SENTENCES.question(
            {
                "instruction": "Please choose the correct answer to fill in the blank: "
                f"Ann {number} met Sue as _ rang.\n\nOption1: Ann Option2: Sue "
                "Answer format: option1/option2",
                "output": "the correct answer is option1",
                "answer": "option1",
            }
        )
        for number in range(num_rows)
    ]


def test_every_row_is_answered_and_scored_as_by_itself(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, path: Path
) -> None:
    questions, shots = sums(7), sums(1, first=50)
    result = evaluate(
        model,
        tokenizer,
        [TaskQuestions(SUMS, questions, shots)],
        path,
        adapters=["default", "__base__"],
        method=METHOD,
    )
    texts = [render(tokenizer, with_shots(each, shots).messages) for each in questions]
    expected = {"default": [generate_batch(model, tokenizer, [text], 12)[0] for text in texts]}
    with model.disable_adapter():
        expected["__base__"] = [generate_batch(model, tokenizer, [text], 12)[0] for text in texts]
    assert expected["default"] != expected["__base__"]
    predictions = read_predictions(path)
    assert len(predictions) == 14
    for each in predictions:
        assert each.answer == expected[each.model][each.row]
        assert each.scores == {"accuracy": SUMS.score(each.answer, questions[each.row])}
        assert each.num_new_tokens == 12 or each.stop_reason == "end"
    assert result.is_complete
    assert result.tokens_per_s is not None
    assert {(each.model, each.num_rows) for each in result.scores} == {
        ("default", 7),
        ("__base__", 7),
    }


def test_options_are_scored_by_each_metric_of_the_task(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, path: Path
) -> None:
    aqua = task_named("aqua")
    problems = [
        aqua.question(
            {
                "instruction": f"What is {number} + 1? "
                "Answer Choices: (A) 1 (B) 2 (C) 3 (D) 4 (E) 5",
                "answer": "A",
            }
        )
        for number in range(3)
    ]
    tasks = [TaskQuestions(SENTENCES, sentences(4)), TaskQuestions(aqua, problems)]
    result = evaluate(
        model, tokenizer, tasks, path, adapters=["default", "__base__"], method=OPTIONS
    )
    assert [(each.task, each.model, each.metric) for each in result.scores] == [
        ("aqua", "__base__", "acc"),
        ("aqua", "__base__", "acc_norm"),
        ("aqua", "default", "acc"),
        ("aqua", "default", "acc_norm"),
        ("winogrande", "__base__", "acc"),
        ("winogrande", "default", "acc"),
    ]
    assert {len(each.log_likelihoods) for each in read_predictions(path)} == {2, 5}


@pytest.mark.parametrize("mode", ["generation", "likelihood"])
def test_an_evaluation_that_was_stopped_goes_on_with_the_rows_that_are_missing(
    mode: str, model: PeftModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    method = METHOD if mode == "generation" else OPTIONS
    task = (
        TaskQuestions(SUMS, sums(6))
        if mode == "generation"
        else TaskQuestions(SENTENCES, sentences(6))
    )

    def run(name: str, stop_after: int | None = None) -> tuple[EvaluationResult, list[Progress]]:
        seen: list[Progress] = []
        result = evaluate(
            model,
            tokenizer,
            [task],
            tmp_path / name,
            method=method,
            on_progress=seen.append,
            stop_requested=lambda: len(seen) - 1 == stop_after,
        )
        return result, seen

    whole, _ = run("whole.jsonl")
    stopped, _ = run("parts.jsonl", stop_after=2)
    assert (stopped.is_complete, stopped.num_rows) == (False, 2)
    resumed, seen = run("parts.jsonl")
    assert seen[0] == Progress(num_done=2, num_rows=6)
    assert (seen[-1].num_done, seen[-1].num_rows) == (6, 6)
    assert seen[-1].tokens_per_s is not None
    parts = merge_predictions([read_predictions(tmp_path / "parts.jsonl")])
    assert [(each.key, each.answer, each.scores) for each in parts] == [
        (each.key, each.answer, each.scores)
        for each in merge_predictions([read_predictions(tmp_path / "whole.jsonl")])
    ]
    assert resumed.scores == whole.scores
    again, _ = run("parts.jsonl")
    assert again.tokens_per_s is None
    assert again.scores == whole.scores


def test_shards_together_are_the_whole(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    def run(name: str, shard: Shard) -> EvaluationResult:
        task = TaskQuestions(SUMS, sums(7))
        return evaluate(model, tokenizer, [task], tmp_path / name, method=METHOD, shard=shard)

    whole = run("whole", Shard())
    parts = [run(f"part-{index}", Shard(index, 3)) for index in range(3)]
    assert [part.num_rows for part in parts] == [3, 2, 2]
    merged = merge_predictions(read_predictions(tmp_path / f"part-{index}") for index in range(3))
    assert merged == merge_predictions([read_predictions(tmp_path / "whole")])
    assert summarize_predictions(merged, is_complete=True).scores == whole.scores


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"questions": sums(3, first=5)}, "other questions: row 0 of addsub"),
        ({"shots": sums(1, first=50)}, "asked otherwise"),
        ({"method": EvaluationMethod(max_new_tokens=13)}, "asked otherwise"),
    ],
    ids=["questions", "examples", "bound"],
)
def test_a_file_of_another_evaluation_is_refused(
    changed: dict[str, object],
    message: str,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
) -> None:
    def run(
        questions: Sequence[Question] = tuple(sums(3)),
        shots: Sequence[Question] = (),
        method: EvaluationMethod = METHOD,
    ) -> None:
        evaluate(model, tokenizer, [TaskQuestions(SUMS, questions, shots)], path, method=method)

    run()
    before = path.read_bytes()
    with pytest.raises(PredictionsUnusableError, match=message):
        run(**changed)
    assert path.read_bytes() == before


def test_a_base_model_alone_is_evaluated(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase, path: Path
) -> None:
    base: PreTrainedModel = load_base_model(str(tiny_model_dir))
    result = evaluate(base, tokenizer, [TaskQuestions(SUMS, sums(2))], path, method=METHOD)
    assert [(each.model, each.num_rows) for each in result.scores] == [("__base__", 2)]
    with pytest.raises(AdapterUnusableError, match="no adapter tuned"):
        evaluate(
            base,
            tokenizer,
            [TaskQuestions(SUMS, sums(2))],
            path,
            adapters=["tuned"],
            method=METHOD,
        )


def test_a_task_without_options_cannot_be_scored_by_them(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, path: Path
) -> None:
    with pytest.raises(DataInvalidError, match="task addsub: line 1 has no options to score"):
        evaluate(model, tokenizer, [TaskQuestions(SUMS, sums(2))], path, method=OPTIONS)


@pytest.mark.parametrize(("num_tasks", "adapters"), [(2, ["default"]), (1, ["default"] * 2)])
def test_what_is_named_twice_is_refused(
    num_tasks: int,
    adapters: list[str],
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
) -> None:
    tasks = [TaskQuestions(SUMS, sums(1))] * num_tasks
    with pytest.raises(ValueError, match="named twice"):
        evaluate(model, tokenizer, tasks, path, adapters=adapters)
