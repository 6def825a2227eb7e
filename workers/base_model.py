"""Finding and loading the frozen base model and its tokenizer.

Weights are read from safetensors only and code that comes with a model is never run.
"""

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import find_adapter_config_file

from workers.chat_templates import set_chat_template
from workers.errors import (
    BaseModelNotFoundError,
    BaseModelUnusableError,
    ReferenceNotAllowedError,
)
from workers.mlflow_download import MLFLOW_SCHEMES, download_model
from workers.reach import reach_of_this_process

DIGESTED = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")
"""Files of a model folder that decide what it computes."""


def resolve(reference: str) -> str:
    """Turn a base model reference into the path of a local folder or a Hugging Face id.

    Args:
        reference: A folder, an MLflow URI (downloaded here), or a Hugging Face id.

    Raises:
        BaseModelNotFoundError: If the folder is missing or MLflow does not have the model.
        BaseModelUnusableError: If there is no model in the folder.
        ReferenceNotAllowedError: If jobs may not use it.
    """
    _require_within_reach(reference)
    if reference.startswith(MLFLOW_SCHEMES):
        return str(_model_folder(download_model(reference), reference))
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return str(_model_folder(folder, reference))
    if folder.exists():
        raise BaseModelUnusableError(
            f"base_model {reference!r} is a file; give the folder that holds its config.json"
        )
    if reference.startswith(("/", ".", "~")) or reference.count("/") > 1:
        raise BaseModelNotFoundError(
            f"base_model {reference!r} does not exist on this machine; "
            "give a folder that every worker can read, a Hugging Face id or an MLflow URI"
        )
    return reference


def load_config(reference: str) -> PreTrainedConfig:
    """Load the configuration alone, which is quick.

    Raises:
        BaseModelNotFoundError: If the base model is not there.
        BaseModelUnusableError: If its config.json is damaged or of an unknown kind.
    """
    source = _source(reference)
    with _loading(reference, "configuration"):
        return AutoConfig.from_pretrained(  # nosec B615 # `_source` pins the commit
            **source, trust_remote_code=False
        )


def context_length(config: PreTrainedConfig) -> int | None:
    """Longest sequence in tokens that the model was made for; None where it states no bound."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_tokenizer(reference: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to a base model, with padding token and chat template set.

    Raises:
        BaseModelNotFoundError: If the base model is not there.
        BaseModelUnusableError: If it has no usable tokenizer.
    """
    source = _source(reference)
    if (separate := _mlflow_tokenizer(source["pretrained_model_name_or_path"])).is_dir():
        source = {"pretrained_model_name_or_path": str(separate)}
    with _loading(reference, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(  # nosec B615 # `_source` pins the commit
            **source, trust_remote_code=False
        )
    if tokenizer.eos_token_id is None:
        raise BaseModelUnusableError(
            f"the tokenizer of base_model {reference!r} has no end-of-sequence token, so answers "
            "would never end; set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked, so any token serves
    set_chat_template(tokenizer, None)
    return tokenizer


def load_base_model(
    reference: str,
    dtype: str = "auto",
    quantization: Literal["8bit", "4bit"] | None = None,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Load a causal language model, frozen, in evaluation mode, set to decode greedily.

    Args:
        reference: What `resolve` takes; kept as the model's `name_or_path`, which PEFT writes
            into adapter_config.json.
        dtype: A torch dtype name, or "auto" for the one the weights are stored in.
        quantization: How bitsandbytes stores the weights of linear layers; None for not at all.
        device: Where to; by default the CPU.

    Raises:
        BaseModelNotFoundError: If the base model is not there.
        BaseModelUnusableError: If it cannot be loaded completely and safely.
    """
    source = _source(reference)
    _require_no_adapter(reference, source)
    with _loading(reference, "model"):
        model, report = AutoModelForCausalLM.from_pretrained(  # nosec B615 # `_source` pins the commit
            **source,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            device_map={"": device} if device is not None else None,
            quantization_config=_quantization(quantization, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if missing := sorted(report["missing_keys"]):
        raise BaseModelUnusableError(
            f"the weights of base_model {reference!r} are incomplete: {len(missing)} tensors are "
            f"missing, first {missing[0]}; download the model again"
        )
    model.requires_grad_(requires_grad=False)
    model.name_or_path = reference
    model.generation_config = GenerationConfig(
        bos_token_id=model.generation_config.bos_token_id,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=model.generation_config.pad_token_id,
    )
    return model


def _quantization(kind: Literal["8bit", "4bit"] | None, dtype: str) -> BitsAndBytesConfig | None:
    if kind is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BaseModelUnusableError(
            f"training.quantization {kind!r} needs bitsandbytes, which the workers lack; "
            "install hyplora[quantization], or leave it out"
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.float32 if dtype == "float32" else torch.bfloat16
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
    )


def load_skeleton(reference: str, dtype: str = "auto") -> PreTrainedModel:
    """Build a base model without its weights, on the meta device: shapes and types, no memory.

    Whether the weights are whole and fit the configuration remains to be seen.

    Args:
        reference: What `resolve` takes.
        dtype: A torch dtype name, or "auto" for the one that the configuration states.

    Raises:
        BaseModelNotFoundError: If the base model is not there.
        BaseModelUnusableError: If its configuration describes no causal language model.
    """
    config = load_config(reference)
    precision = (config.dtype or torch.float32) if dtype == "auto" else getattr(torch, dtype)
    with _loading(reference, "model"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=precision, trust_remote_code=False)
    model.requires_grad_(requires_grad=False)
    model.name_or_path = reference
    return model


def digest(reference: str) -> str:
    """Identify exactly which base model this is, for lineage.

    Returns:
        `sha256:…` over names and contents of a folder's model files, or `commit:…` of the hub.
    """
    source = _source(reference)
    if "revision" in source:
        return f"commit:{source['revision']}"
    folder = Path(source["pretrained_model_name_or_path"])
    total = hashlib.sha256()
    for path in sorted(path for pattern in DIGESTED for path in folder.glob(pattern)):
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name}\0{part}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _source(reference: str) -> dict[str, Any]:
    """Arguments that make `from_pretrained` read this reference, pinned to one hub commit."""
    location = resolve(reference)
    if Path(location).is_dir():
        return {"pretrained_model_name_or_path": location}
    return {"pretrained_model_name_or_path": location, "revision": _hub_commit(location)}


def _require_no_adapter(reference: str, source: dict[str, Any]) -> None:
    """Refuse a model beside which an adapter lies.

    transformers would load the base model that the adapter's configuration names, from wherever
    that says, and the adapter too.
    """
    location, revision = source["pretrained_model_name_or_path"], source.get("revision")
    if find_adapter_config_file(location, revision=revision) is not None:
        raise BaseModelUnusableError(
            f"base_model {reference!r} has an adapter beside it (adapter_config.json), with which "
            "it would not be the model that its name says; give the base model alone"
        )


def _hub_commit(model_id: str) -> str:
    """Commit of a Hugging Face id: the newest that the hub has, or offline the cached one."""
    try:
        config = huggingface_hub.hf_hub_download(  # nosec B615 # finds the commit to pin
            model_id, "config.json"
        )
    except GatedRepoError as error:
        raise BaseModelUnusableError(
            f"base_model {model_id!r} is gated; accept its terms on the Hugging Face hub and set "
            "HF_TOKEN for the workers"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise BaseModelNotFoundError(
            f"base_model {model_id!r} is neither a folder here nor a model on the Hugging Face "
            "hub; check the spelling, or set HF_TOKEN if it is private"
        ) from error
    except RemoteEntryNotFoundError as error:
        raise BaseModelUnusableError(
            f"base_model {model_id!r} has no config.json on the Hugging Face hub; "
            "give a model in transformers format"
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise BaseModelNotFoundError(
            f"base_model {model_id!r} is no folder here, and as a Hugging Face id it is not in "
            "the local cache and the hub cannot be reached; download it first or give a folder"
        ) from error
    return Path(config).parent.name


def _model_folder(folder: Path, reference: str) -> Path:
    """The folder that holds the weights; MLflow's transformers flavor keeps them in `model`."""
    candidates = [found for found in (folder, folder / "model") if (found / "config.json").exists()]
    if not candidates:
        hint = (
            "it holds an adapter; give that adapter's base model"
            if (folder / "adapter_config.json").exists()
            else "give the folder that save_pretrained wrote"
        )
        raise BaseModelUnusableError(f"base_model {reference!r} has no config.json: {hint}")
    if not any(candidates[0].glob("*.safetensors")):
        hint = (
            "only pickled weights, which can run code; convert them to safetensors"
            if any(candidates[0].glob("*.bin")) or any(candidates[0].glob("*.pt"))
            else "no weights; download model.safetensors as well"
        )
        raise BaseModelUnusableError(f"base_model {reference!r} has {hint}")
    return candidates[0]


def _require_within_reach(reference: str) -> None:
    """Refuse what jobs may not use; a name that is a folder here is judged as one."""
    reach = reach_of_this_process()
    if reach is None:
        return
    refusal = reach.refusal_of_base_model(reference)
    if refusal is None and Path(reference).exists():
        refusal = reach.refusal_of_path(str(Path(reference).absolute()))
    if refusal is not None:
        raise ReferenceNotAllowedError(f"base_model: {refusal}")


def _mlflow_tokenizer(folder: str) -> Path:
    """Where MLflow's transformers flavor puts the tokenizer of the model in `folder`."""
    return Path(folder).parent / "components" / "tokenizer"


@contextmanager
def _loading(reference: str, part: str) -> Iterator[None]:
    """Turn the many ways in which transformers refuses a model into one error with its reason."""
    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        ImportError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelUnusableError(
            f"the {part} of base_model {reference!r} cannot be loaded: {reason}"
        ) from error
