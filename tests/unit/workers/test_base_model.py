import ast
import json
import shutil
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
import torch
from jinja2.exceptions import SecurityError
from safetensors.torch import load_file, save_file

from workers.base_model import (
    context_length,
    digest,
    load_base_model,
    load_config,
    load_tokenizer,
    resolve,
)
from workers.errors import BaseModelNotFoundError, BaseModelUnusableError


@pytest.fixture
def model_copy(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_base_model_is_frozen_in_evaluation_mode_and_knows_its_reference(
    tiny_model_dir: Path,
) -> None:
    model = load_base_model(str(tiny_model_dir))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.name_or_path == str(tiny_model_dir)


def test_a_relative_reference_is_kept_as_given(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model_dir.parent)
    assert load_base_model(tiny_model_dir.name).name_or_path == tiny_model_dir.name


@pytest.mark.parametrize(
    ("stored", "asked", "loaded"),
    [
        ("float32", "auto", torch.float32),
        ("bfloat16", "auto", torch.bfloat16),
        ("float32", "bfloat16", torch.bfloat16),
        ("bfloat16", "float32", torch.float32),
    ],
)
def test_auto_keeps_the_stored_precision_and_a_name_sets_it(
    stored: str, asked: str, loaded: torch.dtype, model_copy: Path, tmp_path: Path
) -> None:
    load_base_model(str(model_copy), stored).save_pretrained(tmp_path / "stored")
    assert load_base_model(str(tmp_path / "stored"), asked).dtype == loaded


def test_sampling_settings_of_a_base_model_are_not_taken_over(model_copy: Path) -> None:
    edit_json(
        model_copy / "generation_config.json",
        do_sample=True, temperature=0.2, top_k=20, repetition_penalty=1.3, eos_token_id=[2, 5],
    )  # fmt: skip
    config = load_base_model(str(model_copy)).generation_config
    assert config.eos_token_id == [2, 5]
    assert not config.do_sample
    assert config.temperature is None
    assert config.repetition_penalty is None


def test_a_tokenizer_without_padding_token_pads_with_the_end_token(model_copy: Path) -> None:
    config = json.loads((model_copy / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (model_copy / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(str(model_copy))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_the_context_length_is_the_models(tiny_model_dir: Path) -> None:
    assert context_length(load_config(str(tiny_model_dir))) == 128


@pytest.mark.parametrize(
    "reference", ["/no/such/folder", "./missing", "~/missing", "models/of/mine"]
)
def test_a_missing_folder_is_not_found(reference: str) -> None:
    with pytest.raises(BaseModelNotFoundError, match="does not exist on this machine") as caught:
        resolve(reference)
    assert repr(reference) in str(caught.value)


@pytest.mark.parametrize("reference", ["nobody/nothing", "nothing", "not a name"])
@pytest.mark.parametrize("load", [load_base_model, load_tokenizer, load_config, digest])
def test_an_id_that_neither_cache_nor_hub_has_is_not_found(
    reference: str, load: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BaseModelNotFoundError, match=r"give a folder|check the spelling"):
        load(reference)  # type: ignore[operator]


def test_a_file_is_no_base_model(tiny_model_dir: Path) -> None:
    with pytest.raises(BaseModelUnusableError, match="is a file; give the folder"):
        resolve(str(tiny_model_dir / "config.json"))


def test_a_folder_without_configuration_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnusableError, match=r"no config\.json: give the folder"):
        resolve(str(tmp_path))


def test_an_adapter_is_no_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseModelUnusableError, match="it holds an adapter"):
        resolve(str(tmp_path))


def test_pickled_weights_are_refused(model_copy: Path) -> None:
    (model_copy / "model.safetensors").rename(model_copy / "pytorch_model.bin")
    with pytest.raises(BaseModelUnusableError, match="only pickled weights"):
        load_base_model(str(model_copy))


def test_a_folder_without_weights_is_unusable(model_copy: Path) -> None:
    (model_copy / "model.safetensors").unlink()
    with pytest.raises(BaseModelUnusableError, match="no weights"):
        load_base_model(str(model_copy))


def test_incomplete_weights_are_refused_instead_of_drawn_at_random(model_copy: Path) -> None:
    weights = load_file(model_copy / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, model_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelUnusableError, match=r"1 tensors are missing.*model\.norm\.weight"):
        load_base_model(str(model_copy))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", "no tensors"),
        ("config.json", "{"),
        ("config.json", '{"model_type": "no-such-architecture"}'),
        ("config.json", '{"model_type": "vit"}'),
        ("config.json", '{"auto_map": {"AutoModelForCausalLM": "trap.Model"}}'),
    ],
)
def test_a_damaged_or_foreign_model_is_unusable_in_one_line(
    file: str, content: str, model_copy: Path
) -> None:
    (model_copy / file).write_text(content)
    with pytest.raises(BaseModelUnusableError, match="cannot be loaded") as caught:
        load_base_model(str(model_copy))
    assert "\n" not in str(caught.value)


def test_weights_of_other_shapes_are_unusable(model_copy: Path) -> None:
    edit_json(model_copy / "config.json", intermediate_size=48)
    with pytest.raises(BaseModelUnusableError):
        load_base_model(str(model_copy))


def test_code_that_comes_with_a_model_is_not_run(model_copy: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (model_copy / "trap.py").write_text(f"open({str(sprung)!r}, 'w')")
    edit_json(
        model_copy / "config.json",
        model_type="trap", auto_map={"AutoConfig": "trap.C", "AutoModelForCausalLM": "trap.M"},
    )  # fmt: skip
    with pytest.raises(BaseModelUnusableError):
        load_base_model(str(model_copy))
    assert not sprung.exists()


def test_code_that_comes_with_a_tokenizer_is_not_run(model_copy: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (model_copy / "trap.py").write_text(f"open({str(sprung)!r}, 'w')")
    edit_json(
        model_copy / "tokenizer_config.json",
        tokenizer_class="Trap", auto_map={"AutoTokenizer": ["trap.T", "trap.T"]},
    )  # fmt: skip
    with suppress(BaseModelUnusableError):  # or it is read with what transformers has itself
        load_tokenizer(str(model_copy))
    assert not sprung.exists()


def test_a_chat_template_that_reaches_for_python_gets_nothing(model_copy: Path) -> None:
    tokenizer = load_tokenizer(str(model_copy))
    tokenizer.chat_template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(SecurityError, match="unsafe"):
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)


def test_a_model_with_an_adapter_beside_it_is_refused(model_copy: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "/somewhere/else"}
    (model_copy / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(BaseModelUnusableError, match="has an adapter beside it"):
        load_base_model(str(model_copy))


@pytest.mark.parametrize("folder", ["hyplora", "jobs", "workers", "service", "deploy"])
def test_code_of_models_is_trusted_nowhere(folder: str) -> None:
    for path in (Path(__file__).parents[3] / folder).rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            for keyword in getattr(call, "keywords", []):
                if keyword.arg == "trust_remote_code":
                    assert getattr(keyword.value, "value", None) is False, path


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_tokenizer_is_unusable(content: str, model_copy: Path) -> None:
    (model_copy / "tokenizer.json").write_text(content)
    with pytest.raises(BaseModelUnusableError, match="tokenizer"):
        load_tokenizer(str(model_copy))


def test_the_digest_follows_the_content_and_not_the_place(
    tiny_model_dir: Path, model_copy: Path
) -> None:
    (model_copy / "notes.md").write_text("of no effect")
    assert digest(str(model_copy)) == digest(str(tiny_model_dir))
    edit_json(model_copy / "config.json", rms_norm_eps=1e-5)
    assert digest(str(model_copy)) != digest(str(tiny_model_dir))
