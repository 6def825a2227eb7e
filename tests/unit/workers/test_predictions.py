import json
from pathlib import Path

import pyarrow.parquet
import pytest

from workers.errors import PredictionsUnusableError
from workers.evaluation_result import summarize_predictions
from workers.predictions import (
    Prediction,
    PredictionFile,
    merge_predictions,
    read_predictions,
    write_table,
)


def prediction(row: int = 0, **fields: object) -> Prediction:
    known: dict[str, object] = {
        "task": "gsm8k",
        "model": "__base__",
        "row": row,
        "row_digest": "question",
        "prompt_digest": "prompt",
        "mode": "generation",
        "scores": {"accuracy": 1.0},
        "answer": "It is 4.\n",
        "extracted": "4",
        "num_prompt_tokens": 9,
        "num_new_tokens": 3,
        "stop_reason": "end",
    }
    return Prediction.model_validate(known | fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "of/shard-0.jsonl"


def test_predictions_are_there_when_the_file_is_opened_again(path: Path) -> None:
    with PredictionFile(path) as file:
        assert not file.has(prediction().key, "question", "prompt")
        file.add(prediction())
        assert read_predictions(path) == [prediction()]  # before it is closed
    with PredictionFile(path) as file:
        assert file.has(prediction().key, "question", "prompt")
        file.add(prediction(1))
    assert read_predictions(path) == [prediction(), prediction(1)]


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_line_in_which_the_writer_was_killed_is_dropped(path: Path, kept: int) -> None:
    with PredictionFile(path) as file:
        file.add(prediction())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept])
    assert read_predictions(path) == [prediction()]
    with PredictionFile(path) as file:
        file.add(prediction(1))
    assert read_predictions(path) == [prediction(), prediction(1)]


def test_a_file_that_begins_with_a_half_line_is_empty(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"task": "gs')
    with PredictionFile(path) as file:
        assert file.predictions == {}
    assert path.read_bytes() == b""


def test_predictions_for_other_questions_are_refused(path: Path) -> None:
    with PredictionFile(path) as file:
        file.add(prediction())
        with pytest.raises(PredictionsUnusableError, match="other questions: row 0 of gsm8k"):
            file.has(prediction().key, "another", "prompt")
        with pytest.raises(PredictionsUnusableError, match="was asked otherwise"):
            file.has(prediction().key, "question", "another")


def test_a_file_of_something_else_is_refused_with_its_line(path: Path) -> None:
    with PredictionFile(path) as file:
        file.add(prediction())
    path.write_bytes(path.read_bytes() + b'{"instruction": "2 + 2"}\n')
    with pytest.raises(PredictionsUnusableError, match=r"line 2 of .*jsonl is no prediction"):
        PredictionFile(path)


def test_a_file_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PredictionsUnusableError, match="cannot be read"):
        read_predictions(tmp_path / "none.jsonl")


def test_shards_are_merged_in_order_and_what_both_have_counts_once() -> None:
    shards = [prediction(2), prediction(0)], [prediction(1), prediction(0)]
    assert [each.row for each in merge_predictions(shards)] == [0, 1, 2]


def test_shards_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(PredictionsUnusableError, match="row 0 of gsm8k by __base__ is there twice"):
        merge_predictions([[prediction()], [prediction(answer="5")]])


def test_the_table_has_a_row_for_each_prediction_and_a_column_for_each_metric(
    tmp_path: Path,
) -> None:
    scored = prediction(
        1,
        mode="likelihood",
        scores={"acc": 1.0, "acc_norm": 0.0},
        answer=None,
        extracted=None,
        log_likelihoods=[-1.5, -2.25],
        stop_reason=None,
    )
    write_table([prediction(), scored], tmp_path / "predictions.parquet")
    answered, options = pyarrow.parquet.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert (answered["answer"], answered["accuracy"], answered["acc"]) == ("It is 4.\n", 1.0, None)
    assert (options["log_likelihoods"], options["acc_norm"]) == ([-1.5, -2.25], 0.0)
    assert json.loads(prediction().model_dump_json()).keys() - answered.keys() == {"scores"}


def test_a_table_of_nothing_is_a_table(tmp_path: Path) -> None:
    write_table([], tmp_path / "predictions.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "predictions.parquet").num_rows == 0


def test_a_result_has_intervals_averages_and_what_went_wrong() -> None:
    predictions = [
        prediction(0),
        prediction(1, scores={"accuracy": 0.0}, extracted=None, stop_reason="length"),
        prediction(0, task="svamp"),
        prediction(0, model="tuned", scores={"accuracy": 0.0}),
        prediction(0, task="own", scores={"f1": 0.25}),
    ]
    result = summarize_predictions(predictions, is_complete=True, tokens_per_s=5.0)
    scores = {(each.task, each.model): each for each in result.scores}
    half = scores["gsm8k", "__base__"]
    assert (half.value, half.num_rows, half.share_unreadable, half.share_cut) == (0.5, 2, 0.5, 0.5)
    assert half.interval == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson's of 1 in 2
    averages = {(each.model, each.metric): each.value for each in result.macro_averages}
    assert averages == {
        ("__base__", "accuracy"): 0.75,
        ("__base__", "f1"): 0.25,
        ("tuned", "accuracy"): 0.0,
    }
    assert (result.num_rows, result.is_complete, result.tokens_per_s) == (5, True, 5.0)


def test_options_are_neither_unreadable_nor_cut() -> None:
    scored = prediction(mode="likelihood", scores={"acc": 1.0}, extracted=None, stop_reason=None)
    (score,) = summarize_predictions([scored], is_complete=True).scores
    assert (score.metric, score.share_unreadable, score.share_cut) == ("acc", None, None)
