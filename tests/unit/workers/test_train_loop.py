import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_model import write_addition_rows, write_tiny_model
from tests.unit.workers.recording import run, task_for
from workers.adapter import load_adapter
from workers.base_model import load_base_model
from workers.errors import (
    AdapterUnusableError,
    BaseModelUnusableError,
    CheckpointDamagedError,
    DataInvalidError,
    DataLeakedError,
    LossNotFiniteError,
    RowTooLongError,
)
from workers.generate import load_with_adapter, render_user_prompt
from workers.specs import AdapterSpec, HypLoraSpec, LoraSpec, RunMetric

ADAPTERS = [
    LoraSpec(dropout=0.1),
    HypLoraSpec(dropout=0.1),
    HypLoraSpec(dropout=0.1, learn_curvature=True),
]
ADAPTER_IDS = ["lora", "hyplora", "hyplora-learned-curvature"]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("adapter", [LoraSpec(), HypLoraSpec()], ids=["lora", "hyplora"])
def test_twenty_steps_teach_the_tiny_model_sums(
    adapter: AdapterSpec, tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(
        tiny_model_dir, rows, adapter=adapter, data={"validation_rows": 8}, max_steps=20,
        num_epochs=10, eval_every_steps=10,
    )  # fmt: skip
    reporter, result = run(task, tmp_path / "run")
    losses = reporter.curve(RunMetric.LOSS)
    assert losses[-1] < 0.6 * losses[0]
    early, late = reporter.curve(RunMetric.EVAL_LOSS)
    assert late < early
    assert result.train_loss == losses[-1]
    assert result.eval_loss == late


@pytest.mark.parametrize("adapter", ADAPTERS, ids=ADAPTER_IDS)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    adapter: AdapterSpec, tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(
        tiny_model_dir, rows, adapter=adapter, max_steps=6, checkpoint_every_steps=3,
        warmup_steps=2, weight_decay=0.1, batch_size=6,
    )  # fmt: skip
    straight, whole = run(task, tmp_path / "straight")
    resumed, rest = run(task, tmp_path / "resumed", resume_from=straight.kept[3])
    assert sorted(resumed.history) == [4, 5, 6]
    for metric in (RunMetric.LOSS, RunMetric.GRADIENT_NORM, RunMetric.LEARNING_RATE):
        assert resumed.curve(metric) == straight.curve(metric)[3:]
    expected, found = weights(straight.kept[6]), weights(resumed.kept[6])
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (rest.steps, rest.num_tokens) == (whole.steps, whole.num_tokens)


def test_a_finished_training_run_again_does_no_step_and_has_the_same_result(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, data={"validation_rows": 4}, max_steps=3)
    first, result = run(task, tmp_path / "first")
    again, repeated = run(task, tmp_path / "again", resume_from=first.kept[3])
    assert again.history == {}
    assert repeated == result


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    curves = [
        run(task_for(tiny_model_dir, rows, max_steps=3, seed=seed), tmp_path / str(number))[0]
        for number, seed in enumerate([0, 0, 1])
    ]
    first, same, other = (reporter.curve(RunMetric.LOSS) for reporter in curves)
    assert first == same
    assert first != other


def test_micro_batches_change_only_the_memory(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    curves = [
        run(
            task_for(tiny_model_dir, rows, max_steps=4, micro_batch_tokens=size),
            tmp_path / str(size),
        )[0].curve(RunMetric.LOSS)
        for size in (1000, 60, 1)
    ]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    assert curves[2] == pytest.approx(curves[0], rel=1e-5)


def test_every_step_reports_its_metrics(tiny_model_dir: Path, rows: Path, tmp_path: Path) -> None:
    reporter, _ = run(task_for(tiny_model_dir, rows, max_steps=4), tmp_path / "run")
    assert sorted(reporter.history) == [1, 2, 3, 4]
    assert set(reporter.history[1]) == set(RunMetric) - {
        RunMetric.EVAL_LOSS,
        RunMetric.CHECKPOINT_STEP,
    }
    assert reporter.curve(RunMetric.STEP) == [1, 2, 3, 4]
    assert reporter.curve(RunMetric.TOTAL_STEPS) == [4] * 4
    assert reporter.curve(RunMetric.CURVATURE) == [1.0] * 4
    assert reporter.curve(RunMetric.SECONDS_LEFT)[-1] == 0
    assert min(reporter.curve(RunMetric.TOKENS_PER_S)) > 0


def test_a_learned_curvature_shows_in_the_metrics(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    adapter = HypLoraSpec(learn_curvature=True, curvature=0.5)
    reporter, _ = run(
        task_for(tiny_model_dir, rows, adapter=adapter, max_steps=3), tmp_path / "run"
    )
    first, *later = reporter.curve(RunMetric.CURVATURE)
    assert first == pytest.approx(0.5, rel=0.05)
    assert all(curvature != first for curvature in later)


def test_the_geometry_of_each_layer_is_reported_at_its_steps_if_asked_for(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, max_steps=4, geometry_every_steps=2)
    reporter, _ = run(task, tmp_path / "run")
    geometry = {
        step: {name for name in values if name.startswith("geometry/")}
        for step, values in reporter.history.items()
    }
    assert geometry[1] == geometry[3] == set()
    assert geometry[2] == geometry[4]
    assert len(geometry[2]) == 6 * 14  # quantities of seven layers in each of two blocks
    values = reporter.history[2]
    assert values["geometry/curvature/model.layers.1.mlp.down_proj"] == 1.0
    assert values["geometry/mean_radius/model.layers.0.self_attn.q_proj"] > 0
    assert values["geometry/mean_gain/model.layers.0.self_attn.q_proj"] > 1


def test_plain_lora_reports_no_curvature(tiny_model_dir: Path, rows: Path, tmp_path: Path) -> None:
    task = task_for(tiny_model_dir, rows, adapter=LoraSpec(), max_steps=1)
    reporter, _ = run(task, tmp_path / "run")
    assert RunMetric.CURVATURE not in reporter.history[1]


def test_evaluations_and_checkpoints_come_at_their_steps_and_at_the_end(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(
        tiny_model_dir, rows, data={"validation_rows": 5}, max_steps=5, num_epochs=2,
        eval_every_steps=2, checkpoint_every_steps=3,
    )  # fmt: skip
    reporter, _ = run(task, tmp_path / "run")
    evaluated = [step for step, seen in reporter.history.items() if RunMetric.EVAL_LOSS in seen]
    assert evaluated == [2, 4, 5]
    assert sorted(reporter.kept) == [3, 5]


def test_held_out_rows_come_from_their_own_file_if_one_is_given(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    held_out = write_addition_rows(tmp_path / "held-out.jsonl", num_rows=6, first=50)
    task = task_for(tiny_model_dir, rows, validation=held_out, max_steps=1)
    reporter, result = run(task, tmp_path / "run")
    assert result.num_train_rows == 32
    assert result.eval_loss == reporter.history[1][RunMetric.EVAL_LOSS]


def test_epochs_follow_each_other_without_a_gap(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = write_addition_rows(tmp_path / "rows.jsonl", num_rows=5)
    task = task_for(tiny_model_dir, rows, batch_size=4, num_epochs=3)
    _, result = run(task, tmp_path / "run")
    _, once = run(
        task_for(tiny_model_dir, rows, batch_size=5, num_epochs=1), tmp_path / "one-epoch"
    )
    assert result.steps == result.total_steps == 4  # 15 rows, 4 a step
    assert result.num_tokens == 3 * once.num_tokens


def test_the_last_checkpoint_holds_the_product(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    reporter, result = run(task_for(tiny_model_dir, rows, max_steps=2), tmp_path / "run")
    adapter = reporter.kept[2] / "adapter"
    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model_dir)
    model = load_adapter(load_base_model(str(tiny_model_dir)), adapter)
    num_loaded = sum(
        parameter.numel() for name, parameter in model.named_parameters() if "hyplora_" in name
    )
    assert num_loaded == result.num_trainable_parameters


def test_the_folders_of_checkpoints_are_removed(
    tiny_model_dir: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    task = task_for(tiny_model_dir, rows, max_steps=2, checkpoint_every_steps=1)
    reporter, _ = run(task, tmp_path / "run")
    assert len(reporter.handed_over) == 2
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_loss_that_is_not_finite_ends_the_training_with_advice(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, adapter=LoraSpec(), learning_rate=1e30, max_steps=9)
    with pytest.raises(LossNotFiniteError, match=r"at step \d.*training\.learning_rate"):
        run(task, tmp_path / "run")


def test_a_checkpoint_of_another_training_is_refused(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    first, _ = run(task_for(tiny_model_dir, rows, max_steps=2), tmp_path / "run")
    other = task_for(tiny_model_dir, rows, max_steps=2, learning_rate=1e-3)
    with pytest.raises(AdapterUnusableError, match="other data or settings"):
        run(other, tmp_path / "other", resume_from=first.kept[2])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", b"{"),
        ("state.json", b"[]"),
        ("optimizer.pt", b"no tensors"),
        ("optimizer.pt", None),
        ("adapter/adapter_model.safetensors", b"no tensors"),
        ("adapter/adapter_model.safetensors", None),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    file: str, content: bytes | None, tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, max_steps=1)
    reporter, _ = run(task, tmp_path / "run")
    damaged = shutil.copytree(reporter.kept[1], tmp_path / "damaged")
    if content is None:
        (damaged / file).unlink()
    else:
        (damaged / file).write_bytes(content)
    with pytest.raises(CheckpointDamagedError, match=r"damaged.*no older checkpoint is whole"):
        run(task, tmp_path / "again", resume_from=damaged)


def test_a_checkpoint_of_another_release_is_refused(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, max_steps=1)
    reporter, _ = run(task, tmp_path / "run")
    (reporter.kept[1] / "state.json").write_text('{"format_version": 99}')
    with pytest.raises(AdapterUnusableError, match="has format 99"):
        run(task, tmp_path / "again", resume_from=reporter.kept[1])


@pytest.mark.parametrize("file", ["state.json", "optimizer.pt", "adapter/adapter_config.json"])
def test_a_truncated_checkpoint_gives_way_to_the_one_before_it(
    file: str, tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, max_steps=4, checkpoint_every_steps=1)
    straight, _ = run(task, tmp_path / "straight")
    truncated = straight.kept[3] / file
    truncated.write_bytes(truncated.read_bytes()[:-7])
    resumed, _ = run(task, tmp_path / "resumed", resume_from=[straight.kept[3], straight.kept[2]])
    assert sorted(resumed.history) == [3, 4]
    assert resumed.curve(RunMetric.LOSS) == straight.curve(RunMetric.LOSS)[2:]


def test_a_pickle_in_place_of_the_optimizer_is_not_run(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)

    task = task_for(tiny_model_dir, rows, max_steps=1)
    reporter, _ = run(task, tmp_path / "run")
    optimizer, state = (reporter.kept[1] / name for name in ("optimizer.pt", "state.json"))
    torch.save(Trap(), optimizer)
    record = json.loads(state.read_text())
    record["sha256"]["optimizer.pt"] = hashlib.sha256(optimizer.read_bytes()).hexdigest()
    state.write_text(json.dumps(record))
    with pytest.raises(CheckpointDamagedError, match="optimizer state"):
        run(task, tmp_path / "again", resume_from=reporter.kept[1])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("max_length", "limit"), [(None, 128), (100, 100)], ids=["context", "spec"]
)
def test_a_row_longer_than_context_or_spec_fails_before_training(
    max_length: int | None, limit: int, tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    with rows.open("a") as file:
        file.write(json.dumps({"instruction": "1" * 130, "output": "2"}) + "\n")
    task = task_for(tiny_model_dir, rows, data={"max_length": max_length})
    with pytest.raises(RowTooLongError, match=rf"line 33 has \d+ tokens and at most {limit} "):
        run(task, tmp_path / "run")


def test_holding_out_every_row_is_refused(tiny_model_dir: Path, rows: Path, tmp_path: Path) -> None:
    task = task_for(tiny_model_dir, rows, data={"validation_rows": 32})
    with pytest.raises(DataInvalidError, match=r"data\.validation_rows is 32 .* 32 rows"):
        run(task, tmp_path / "run")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(rows: Path, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["1"] = 300
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BaseModelUnusableError, match=r"makes token 300 .* knows 259"):
        run(task_for(folder, rows), tmp_path / "run")


def test_a_training_that_is_asked_to_stop_leaves_a_checkpoint_to_go_on_from(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, max_steps=6, checkpoint_every_steps=None)
    straight, _ = run(task, tmp_path / "straight")
    stopped, result = run(task, tmp_path / "stopped", stop_after=4)
    assert (result.steps, result.total_steps, result.is_complete) == (4, 6, False)
    assert sorted(stopped.kept) == [4]
    resumed, result = run(task, tmp_path / "resumed", resume_from=stopped.kept[4])
    assert stopped.curve(RunMetric.LOSS) + resumed.curve(RunMetric.LOSS) == straight.curve(
        RunMetric.LOSS
    )
    assert result.is_complete


def test_checkpoints_come_by_the_clock_if_asked_for(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(
        tiny_model_dir, rows, max_steps=3, checkpoint_every_steps=None,
        checkpoint_every_minutes=1e-9,
    )  # fmt: skip
    reporter, _ = run(task, tmp_path / "run")
    assert sorted(reporter.kept) == [1, 2, 3]


def test_a_loss_that_is_not_finite_is_traced_to_layer_geometry_and_rows(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, learning_rate=1e30, max_steps=9)
    with pytest.raises(LossNotFiniteError) as caught:
        run(task, tmp_path / "run")
    message = str(caught.value)
    assert re.search(r"at step \d", message)
    assert re.search(r"micro-batch 1 \(lines \d+(, \d+)*\)", message)
    assert re.search(r"Not finite first at model\.layers\.0\.", message)
    assert re.search(r"Geometry of model\.layers\.0\.\S+: curvature 1, mean radius", message)


def test_gradient_checkpointing_changes_only_the_memory(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    curves = [
        run(
            task_for(
                tiny_model_dir, rows, adapter=HypLoraSpec(dropout=0.1), max_steps=3,
                gradient_checkpointing=checkpointing,
            ),
            tmp_path / str(checkpointing),
        )[0].curve(RunMetric.LOSS)
        for checkpointing in (False, True)
    ]  # fmt: skip
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_the_report_on_the_data_comes_before_the_first_step(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, data={"validation_rows": 5}, max_steps=1)
    reporter, result = run(task, tmp_path / "run")
    (report,) = reporter.reports
    assert (report.num_rows, report.num_held_out) == (result.num_train_rows, 5)


def test_rows_of_an_evaluation_set_end_the_job_or_are_left_out_as_the_spec_says(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    judged = write_addition_rows(tmp_path / "judged.jsonl", num_rows=3, first=5)
    sets = {"evaluation_sets": {"sums": judged.as_uri()}}
    warned, result = run(task_for(tiny_model_dir, rows, data=sets, max_steps=1), tmp_path / "warn")
    assert result.num_train_rows == 32
    assert warned.reports[0].leakage["sums"].num_train_exact == 3
    dropping = task_for(tiny_model_dir, rows, data=sets | {"leakage": "drop"}, max_steps=1)
    dropped, result = run(dropping, tmp_path / "drop")
    assert result.num_train_rows == 29
    assert dropped.reports[0].num_dropped_leaked == 3
    failing = task_for(tiny_model_dir, rows, data=sets | {"leakage": "fail"}, max_steps=1)
    with pytest.raises(DataLeakedError, match=r"3 rows, first line 6, .*sums"):
        run(failing, tmp_path / "fail")


@pytest.mark.parametrize(("policy", "num_rows", "num_cut"), [("truncate", 34, 1), ("drop", 33, 0)])
def test_long_rows_are_cut_or_left_out_as_the_spec_says(
    policy: str, num_rows: int, num_cut: int, tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    with rows.open("a") as file:
        file.write(json.dumps({"instruction": "1", "output": "2" * 130}) + "\n")
        file.write(json.dumps({"instruction": "1" * 130, "output": "2"}) + "\n")
        file.write(json.dumps({"instruction": "3", "output": "4"}) + "\n")
    task = task_for(tiny_model_dir, rows, data={"long_rows": policy}, max_steps=1)
    reporter, result = run(task, tmp_path / "run")
    (report,) = reporter.reports
    assert result.num_train_rows == report.num_rows == num_rows
    assert (report.num_truncated, report.num_dropped_too_long) == (num_cut, 35 - num_rows)
    assert report.lengths.maximum <= 128


def test_a_named_chat_template_travels_with_the_adapter(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, data={"chat_template": "raw"}, max_steps=1)
    reporter, _ = run(task, tmp_path / "run")
    _, tokenizer = load_with_adapter(None, reporter.kept[1] / "adapter")
    assert render_user_prompt(tokenizer, "1 + 1 =") == "1 + 1 ="


@pytest.mark.filterwarnings("ignore")  # of torch about itself, while it traces
def test_a_compiled_model_draws_the_same_curve(
    tiny_model_dir: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced and differentiated as in earnest, but not turned into machine code.
    monkeypatch.setattr(
        "torch.nn.Module.compile",
        lambda module, **options: setattr(
            module,
            "_compiled_call_impl",
            torch.compile(module._call_impl, backend="aot_eager", **options),
        ),
    )
    curves = [
        run(
            task_for(tiny_model_dir, rows, max_steps=3, compile=compiled), tmp_path / str(compiled)
        )[0].curve(RunMetric.LOSS)
        for compiled in (False, True)
    ]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
