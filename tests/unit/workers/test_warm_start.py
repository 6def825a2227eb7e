"""Trainings that share a base model in memory are those that load their own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.workers.recording import RecordingReporter, run, task_for
from workers import warm_start
from workers.base_model import load_tokenizer
from workers.errors import TargetModulesNotFoundError
from workers.generate import generate_batch, load_with_adapter
from workers.specs import AdapterSpec, HypLoraSpec, LoraSpec, RunMetric
from workers.train_loop import train
from workers.warm_start import SharedRows, WarmStart

CPU = torch.device("cpu")
ADAPTERS: list[AdapterSpec] = [
    HypLoraSpec(curvature=0.1, dropout=0.1),
    LoraSpec(r=4),
    HypLoraSpec(r=16, learn_curvature=True, target_modules=("q_proj", "v_proj")),
]


def test_a_warm_training_equals_a_cold_one_bit_for_bit_whatever_came_before(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    options = {"data": {"validation_rows": 8, "chat_template": "plain"}, "max_steps": 4}
    tasks = [task_for(tiny_model_dir, rows, adapter=adapter, **options) for adapter in ADAPTERS]
    warm = WarmStart(SharedRows.read(tasks[0]))
    for number, task in enumerate(tasks):
        cold, expected = run(task, tmp_path / f"cold-{number}")
        reporter = RecordingReporter(tmp_path / f"warm-{number}")
        found = train(task, reporter, CPU, warm.prepare)
        warm.release()
        for metric in (RunMetric.LOSS, RunMetric.EVAL_LOSS, RunMetric.GRADIENT_NORM):
            assert reporter.curve(metric) == cold.curve(metric)
        assert (found.eval_loss, found.num_tokens) == (expected.eval_loss, expected.num_tokens)
        files = [kept.kept[4] / "adapter" for kept in (cold, reporter)]
        weights = [load_file(folder / "adapter_model.safetensors") for folder in files]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        templates = [(folder / "chat_template.jinja").read_text() for folder in files]
        assert templates[0] == templates[1]


def test_a_model_in_training_answers_as_its_saved_adapter_does_and_leaves_no_trace(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, adapter=HypLoraSpec(curvature=0.1), max_steps=4)
    warm, tokenizer = WarmStart(SharedRows.read(task)), load_tokenizer(str(tiny_model_dir))
    prompts = ["1 + 2 =", "A longer question, of other length: 3 + 4 ="]
    curves, answers = [], []
    for number in range(2):
        reporter = RecordingReporter(tmp_path / str(number))
        train(task, reporter, CPU, warm.prepare)
        with warm.answering() as model:
            answers.append(generate_batch(model, tokenizer, prompts, 12))
        warm.release()
        curves.append(reporter.curve(RunMetric.LOSS))
    saved, _ = load_with_adapter(None, reporter.kept[4] / "adapter")
    assert answers == [generate_batch(saved, tokenizer, prompts, 12)] * 2
    assert curves[0] == curves[1]


def test_the_base_model_is_loaded_again_only_where_a_training_wants_it_otherwise(
    tiny_model_dir: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[bool] = []
    load = warm_start.load_base
    monkeypatch.setattr(warm_start, "load_base", lambda *args: loaded.append(True) or load(*args))
    settings = [
        {"learning_rate": 1e-2},
        {"learning_rate": 1e-3, "weight_decay": 0.1, "seed": 3},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "batch_size": 4},
    ]
    tasks = [task_for(tiny_model_dir, rows, max_steps=1, **each) for each in settings]
    warm = WarmStart(SharedRows.read(tasks[0]))
    counts = []
    for number, task in enumerate(tasks):
        train(task, RecordingReporter(tmp_path / str(number)), CPU, warm.prepare)
        warm.release()
        counts.append(len(loaded))
    assert counts == [1, 1, 2, 2]


def test_a_training_that_fails_leaves_the_base_model_as_it_was(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    good = task_for(tiny_model_dir, rows, max_steps=2)
    misled = task_for(
        tiny_model_dir, rows, adapter=HypLoraSpec(target_modules=("nowhere",)), max_steps=2
    )
    warm = WarmStart(SharedRows.read(good))
    curves = []
    for number, task in enumerate([good, misled, good]):
        reporter = RecordingReporter(tmp_path / str(number))
        if task is misled:
            with pytest.raises(TargetModulesNotFoundError):
                train(task, reporter, CPU, warm.prepare)
        else:
            train(task, reporter, CPU, warm.prepare)
            curves.append(reporter.curve(RunMetric.LOSS))
        warm.release()
    assert curves[0] == curves[1]
