"""One worker's part: adapters of two methods over one base, resumed, split and in every mode."""

import json
from pathlib import Path

import pytest
import torch

from jobs.evaluation.answering import answer
from jobs.evaluation.asked import Asked
from jobs.task_specs import TaskSpec
from workers.adapter import build_adapter, save_adapter
from workers.base_model import load_base_model
from workers.chat_templates import CHAT_TEMPLATES, TEMPLATE_FILE
from workers.data import tokenize
from workers.errors import AdapterUnusableError
from workers.evaluate import Progress, Shard
from workers.generate import load_with_adapter
from workers.predictions import merge_predictions, read_predictions
from workers.rows import parse_row
from workers.specs import AdapterSpec, HypLoraSpec, LoraSpec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters, of which one has a name that PEFT gives weights, and two share a method."""
    adapters: dict[str, AdapterSpec] = {
        "lora": LoraSpec(init_weights=False),
        "hyplora": HypLoraSpec(init_weights=False, curvature=0.5),
        "steep": HypLoraSpec(init_weights=False, curvature=0.1, r=4),
    }
    folders = {}
    for seed, (name, spec) in enumerate(adapters.items()):
        torch.manual_seed(seed)
        folders[name] = tmp_path_factory.mktemp(name)
        save_adapter(build_adapter(load_base_model(str(tiny_model_dir)), spec), folders[name])
    return folders


def asked_of(tiny_model_dir: Path, folders: dict[str, Path], rows: Path, **fields: object) -> Asked:
    task = TaskSpec.model_validate({"benchmark": "addsub", "data": f"file://{rows}"})
    settings = {"tasks": (task,), "max_new_tokens": 8, "batch_rows": 2} | fields
    return Asked(
        base_model=str(tiny_model_dir),
        models={"base": None} | {name: str(folder) for name, folder in folders.items()},
        files={},
        **settings,  # type: ignore[arg-type]
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    sums = [{"instruction": f"{n} + 1 =", "answer": n + 1} for n in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in sums))
    return path


def test_adapters_of_several_methods_answer_as_each_does_by_itself(
    tiny_model_dir: Path, folders: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    asked = asked_of(tiny_model_dir, folders, rows)
    assert answer(asked, tmp_path / "all", Shard(), CPU, seen.append)
    together = {(each.model, each.row): each for each in read_predictions(tmp_path / "all")}
    for name, folder in folders.items():
        alone = asked_of(tiny_model_dir, {name: folder}, rows)
        assert answer(alone, tmp_path / name, Shard(), CPU)
        for each in read_predictions(tmp_path / name):
            assert together[each.model, each.row] == each
    answers = {name: tuple(together[name, n].answer for n in range(5)) for name in asked.models}
    assert len(set(answers.values())) == 4
    assert (seen[-1].num_done, seen[-1].num_rows) == (20, 20)
    assert [each.num_done for each in seen] == sorted(each.num_done for each in seen)


@pytest.mark.parametrize("mode", ["generation", "gold"])
def test_shards_that_were_stopped_come_to_the_predictions_of_one(
    mode: str, tiny_model_dir: Path, folders: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    asked = asked_of(tiny_model_dir, folders, rows, mode=mode)
    assert answer(asked, tmp_path / "one", Shard(), CPU)
    for index in range(2):
        path, shard = tmp_path / f"shard-{index}", Shard(index, 2)
        assert not answer(asked, path, shard, CPU, stop_requested=lambda: True)
        assert len(read_predictions(path)) == 1
        assert answer(asked, path, shard, CPU)
    shards = merge_predictions(read_predictions(tmp_path / f"shard-{index}") for index in range(2))
    whole = merge_predictions([read_predictions(tmp_path / "one")])
    for first, second in zip(shards, whole, strict=True):
        assert first.model_copy(update={"log_likelihoods": ()}) == second.model_copy(
            update={"log_likelihoods": ()}
        )
        assert first.log_likelihoods == pytest.approx(second.log_likelihoods, rel=1e-4)


def test_gold_measures_what_training_would_lose_on_the_row(
    tiny_model_dir: Path, folders: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    asked = asked_of(tiny_model_dir, {"lora": folders["lora"]}, rows, mode="gold")
    assert answer(asked, tmp_path / "gold", Shard(), CPU)
    found = {(each.model, each.row): each for each in read_predictions(tmp_path / "gold")}
    for name, folder in {"base": None, "lora": folders["lora"]}.items():
        model, tokenizer = load_with_adapter(str(tiny_model_dir), folder)
        for number in range(5):
            row = parse_row(
                json.dumps({"instruction": f"{number} + 1 =", "output": str(number + 1)}), 1
            )
            (example,) = tokenize([(1, row)], tokenizer)
            ids = example.input_ids.long()[None]
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0].log_softmax(dim=-1)
            each_token = logits[:-1].gather(1, ids[0, 1:, None])[:, 0]
            expected = float(each_token[example.is_answer[1:]].sum())
            prediction = found[name, number]
            assert prediction.log_likelihoods == (pytest.approx(expected, rel=1e-4),)
            assert prediction.num_new_tokens == example.num_answer_tokens
            assert prediction.scores == {}


def test_options_are_chosen_by_likelihood(
    tiny_model_dir: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "options.jsonl"
    options = "Answer Choices: (A) 1 (B) 2 (C) 3 (D) 4 (E) 5"
    problems = [{"instruction": f"What is {n} + 1? {options}", "answer": "A"} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in problems))
    task = TaskSpec.model_validate({"benchmark": "aqua", "data": f"file://{path}"})
    asked = asked_of(tiny_model_dir, folders, path, tasks=(task,), mode="likelihood")
    assert answer(asked, tmp_path / "predictions", Shard(), CPU)
    found = read_predictions(tmp_path / "predictions")
    assert len(found) == 12
    assert {len(each.log_likelihoods) for each in found} == {5}
    assert {tuple(each.scores) for each in found} == {("acc", "acc_norm")}


def test_adapters_of_different_layouts_are_not_asked_alike_unless_one_is_named(
    tiny_model_dir: Path, folders: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    pair = {"lora": folders["lora"], "hyplora": tmp_path / "hyplora"}
    pair["hyplora"].mkdir()
    for path in folders["hyplora"].iterdir():
        (pair["hyplora"] / path.name).write_bytes(path.read_bytes())
    (pair["hyplora"] / TEMPLATE_FILE).write_text(CHAT_TEMPLATES["raw"])
    asked = asked_of(tiny_model_dir, pair, rows)
    with pytest.raises(AdapterUnusableError, match="'lora' and 'hyplora' were trained with diff"):
        answer(asked, tmp_path / "predictions", Shard(), CPU)
    named = asked_of(tiny_model_dir, pair, rows, chat_template="raw")
    assert answer(named, tmp_path / "predictions", Shard(), CPU)
    own = asked_of(tiny_model_dir, {"hyplora": pair["hyplora"]}, rows)
    assert answer(own, tmp_path / "predictions", Shard(), CPU), "the same prompts: all are there"


def test_an_incomplete_adapter_is_named(
    tiny_model_dir: Path, folders: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    asked = asked_of(tiny_model_dir, folders | {"gone": tmp_path / "gone"}, rows)
    with pytest.raises(AdapterUnusableError, match=r"gone holds no adapter_config\.json"):
        answer(asked, tmp_path / "predictions", Shard(), CPU)
