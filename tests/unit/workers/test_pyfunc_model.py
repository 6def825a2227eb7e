import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from workers.adapter import build_adapter, save_adapter
from workers.base_model import load_base_model
from workers.errors import BaseModelNotFoundError, DataInvalidError
from workers.pyfunc_model import AdaptedModel, _load_pyfunc
from workers.specs import HypLoraSpec

QUESTIONS = ["2 + 2 =", "Count up from one:"]
NOT_THERE = ("deploy", "fastapi", "jaxtyping", "jobs", "ray", "service", "sqlalchemy")
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def adapter_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("adapter")
    model = load_base_model(str(tiny_model_dir))
    save_adapter(build_adapter(model, HypLoraSpec(init_weights=False)), folder)
    return folder


@pytest.fixture(scope="module")
def model(adapter_dir: Path) -> AdaptedModel:
    return _load_pyfunc(str(adapter_dir), {"max_new_tokens": 8})


@pytest.mark.parametrize(
    "data",
    [
        np.array(QUESTIONS),
        np.array(QUESTIONS, dtype=object)[:, None],
        pd.DataFrame({"prompt": QUESTIONS, "id": [1, 2]}),
        pd.Series(QUESTIONS),
        tuple(QUESTIONS),
    ],
    ids=["array", "column", "frame", "series", "tuple"],
)
def test_prompts_come_in_every_form_that_mlflow_passes_on(
    data: object, model: AdaptedModel
) -> None:
    answers = model.predict(QUESTIONS)
    assert len(answers) == 2
    assert all(type(answer) is str for answer in answers)
    assert model.predict(data) == answers


def test_one_text_is_one_prompt(model: AdaptedModel) -> None:
    assert model.predict(QUESTIONS[0]) == model.predict(QUESTIONS[:1])


def test_the_length_of_answers_is_set_by_configuration_or_call(model: AdaptedModel) -> None:
    (short,) = model.predict(QUESTIONS[:1])
    (longer,) = model.predict(QUESTIONS[:1], {"max_new_tokens": 16})
    assert longer.startswith(short)
    assert len(longer) > len(short)


def test_a_prompt_that_is_no_text_is_refused(model: AdaptedModel) -> None:
    with pytest.raises(DataInvalidError, match=r"prompt 2 is 3\.0 \(float\); give a list of texts"):
        model.predict(["2 + 2 =", 3.0])


def test_the_base_model_may_lie_elsewhere_than_in_training(
    adapter_dir: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(adapter_dir, tmp_path / "adapter")
    config = json.loads((moved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/on/the/training/machine"
    (moved / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelNotFoundError, match="/on/the/training/machine"):
        _load_pyfunc(str(moved))
    found = _load_pyfunc(str(moved), {"base_model": str(tiny_model_dir), "max_new_tokens": 8})
    expected = _load_pyfunc(str(adapter_dir), {"max_new_tokens": 8})
    assert found.predict(QUESTIONS) == expected.predict(QUESTIONS)


def test_a_model_version_needs_only_the_two_folders_it_carries(
    adapter_dir: Path, model: AdaptedModel, tmp_path: Path
) -> None:
    for package in ("hyplora", "workers"):
        shutil.copytree(REPOSITORY / package, tmp_path / "code" / package)
    code = f"""
import json, sys
sys.modules.update(dict.fromkeys({NOT_THERE!r}))  # importing any of them fails
sys.path.insert(0, {str(tmp_path / "code")!r})
import workers.pyfunc_model as loader
assert loader.__file__.startswith({str(tmp_path)!r}), loader.__file__
model = loader._load_pyfunc({str(adapter_dir)!r}, {{"max_new_tokens": 8}})
print(json.dumps(model.predict({QUESTIONS!r})))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == model.predict(QUESTIONS)
