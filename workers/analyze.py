"""Looking at the geometry of a model, with its adapter and without, on the rows of a data set.

Knows neither Ray nor MLflow; `hyplora.analysis` measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from hyplora import HypLoraConfig
from hyplora.analysis.adapter_effect import AdapterEffect, measure_adapter
from hyplora.analysis.hyperbolicity import Sampling
from hyplora.analysis.power_law import PowerLawFit, fit_power_law
from hyplora.analysis.prompt_hyperbolicity import PromptHyperbolicity, measure_prompts
from hyplora.analysis.token_counts import count_tokens, token_rows
from hyplora.analysis.token_norms import NormsByFrequency, embedding_norms, norms_by_frequency
from hyplora.analysis.word_groups import WordGroupNorms, word_group_norms
from hyplora.errors import AnalysisError
from workers.adapter import load_adapter
from workers.base_model import context_length, load_base_model, load_tokenizer
from workers.chat_templates import set_chat_template, use_template_of
from workers.data import encode, render_question
from workers.mlflow_download import adapter_folder
from workers.seeds import derive_seed, permutation
from workers.sources import NumberedRow, read_rows

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from workers.analysis_spec import AnalysisSpec
    from workers.specs import ChatTemplateName, HubDatasetSpec


@dataclass(frozen=True)
class Subject:
    """What is looked at."""

    base_model: str
    """A folder, a Hugging Face id or an MLflow URI."""

    adapter: str | None
    """A folder or an MLflow URI; None for the base model alone."""

    data: str | HubDatasetSpec
    """The rows that prompts and token counts are of."""

    files: Mapping[str, Path]
    """Where uploaded files lie, by id."""

    columns: Mapping[str, str]
    """Names that fields have in the rows, where they are others."""

    chat_template: ChatTemplateName | None
    """Layout of a conversation; None for the adapter's, else the base model's own."""

    dtype: str = "auto"
    """Precision of the base model."""

    quantization: Literal["8bit", "4bit"] | None = None
    """How bitsandbytes stores its linear layers."""


class Analyst:
    """Measures one subject part by part; models and rows are read when a part first needs them.

    All parts raise `WorkerError` for a model, an adapter or rows that cannot be used, and
    `AnalysisError` for what cannot be measured on them.

    Args:
        subject: What is looked at.
        spec: How exactly.
        device: Where the model computes.
    """

    def __init__(self, subject: Subject, spec: AnalysisSpec, device: torch.device) -> None:
        self._subject = subject
        self._spec = spec
        self._device = device

    def hyperbolicity(self) -> PromptHyperbolicity:
        """Delta of each prompt's token embeddings and final hidden states."""
        spec = self._spec
        sampling = Sampling(spec.num_base_points, spec.max_points, spec.seed)
        return measure_prompts(self._model, self.prompts, sampling)

    def power_law(self) -> PowerLawFit:
        """The power law of `token_counts`."""
        return fit_power_law(self.token_counts, self._spec.num_resamples, self._spec.seed)

    def norms(self) -> NormsByFrequency:
        """Embedding norms against frequency."""
        return norms_by_frequency(self._embedding_norms, self.token_counts)

    def word_groups(self) -> tuple[WordGroupNorms, ...]:
        """Embedding norms of words from the general to the specific."""
        return word_group_norms(self._tokenizer, self._embedding_norms, self.token_counts)

    def adapter_effect(self) -> AdapterEffect:
        """Gains and displacements in each layer."""
        if self._subject.adapter is None:
            raise AnalysisError("there is no adapter")
        (config,) = self._model.peft_config.values()
        if not isinstance(config, HypLoraConfig):
            raise AnalysisError(
                f"the adapter is {config.peft_type.value}; gains are what HypLoRA alone has, and "
                "what any adapter does to the final hidden states is in their delta"
            )
        return measure_adapter(self._model, self.prompts)

    @cached_property
    def token_counts(self) -> Int[Tensor, " vocabulary"]:
        """How often each token occurs in what is said in the rows.

        Without the chat template, whose tokens are as frequent as there are rows, whatever the
        rows say.
        """
        texts = (turn.content for _, row in self._rows for turn in row.turns)
        size = self._model.get_input_embeddings().num_embeddings
        return count_tokens(token_rows(self._tokenizer, texts), size)

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Tokens of the drawn rows' questions, as training lays them out, in the rows' order.

        Those longer than the model's context are left out.
        """
        spec = self._spec
        order = permutation(len(self._rows), derive_seed(spec.seed, "prompts"))
        drawn = [self._rows[index][1] for index in sorted(order[: spec.num_prompts])]
        encoded = encode(
            self._tokenizer, [render_question(self._tokenizer, row.turns) for row in drawn]
        )
        longest = context_length(self._model.config)
        prompts = [ids for ids in encoded if longest is None or len(ids) <= longest]
        if not prompts:
            raise AnalysisError(
                f"all {len(encoded)} prompts are longer than the base model's context of "
                f"{longest} tokens; give shorter rows"
            )
        return prompts

    def about_prompts(self) -> str:
        """How many prompts there are, in words."""
        num_drawn = min(self._spec.num_prompts, len(self._rows))
        too_long = num_drawn - len(self.prompts)
        beside = f"; {too_long} longer than the model's context are left out" if too_long else ""
        return f"questions of {len(self.prompts)} of {len(self._rows)} rows{beside}"

    @cached_property
    def _rows(self) -> Sequence[NumberedRow]:
        subject = self._subject
        return read_rows(
            subject.data, name="data", files=subject.files, columns=dict(subject.columns)
        )

    @cached_property
    def _adapter_folder(self) -> Path | None:
        reference = self._subject.adapter
        return adapter_folder(reference, reference) if reference is not None else None

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        template, folder = self._subject.chat_template, self._adapter_folder
        tokenizer = load_tokenizer(self._subject.base_model)
        if template is not None:
            set_chat_template(tokenizer, template)
        elif folder is not None:
            use_template_of(tokenizer, {"adapter": folder})
        return tokenizer

    @cached_property
    def _model(self) -> PreTrainedModel | PeftModel:
        subject, device = self._subject, self._device
        # bitsandbytes packs weights on the device where they will be used.
        home = device if subject.quantization else None
        model = load_base_model(subject.base_model, subject.dtype, subject.quantization, home)
        if home is None:
            model.to(device)
        if self._adapter_folder is not None:
            model = load_adapter(model, self._adapter_folder).to(device)
        return model.eval()

    @cached_property
    def _embedding_norms(self) -> Float[Tensor, " vocabulary"]:
        return embedding_norms(self._model)
