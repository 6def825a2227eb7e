"""MLflow's pyfunc face of a registered adapter: prompts in, greedy answers out.

MLflow imports this module from the code that a model version carries, in processes where this
project is not installed: what it imports needs torch, transformers, peft and pydantic alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workers.errors import DataInvalidError
from workers.generate import (
    MAX_NEW_TOKENS,
    generate_batch,
    load_with_adapter,
    render_user_prompt,
)


class AdaptedModel:
    """A base model with its adapter; the base model is loaded with the object.

    Args:
        adapter_dir: The artifacts of the model version.
        model_config: May hold `base_model`, where it lies here if not where it was in training,
            `max_new_tokens` and `dtype`.
    """

    def __init__(self, adapter_dir: Path, model_config: Mapping[str, Any]) -> None:
        self._max_new_tokens = int(model_config.get("max_new_tokens", MAX_NEW_TOKENS))
        self._model, self._tokenizer = load_with_adapter(
            model_config.get("base_model"), adapter_dir, model_config.get("dtype", "auto")
        )

    def predict(self, data: object, params: Mapping[str, Any] | None = None) -> list[str]:
        """Answer prompts, each as one user turn.

        Args:
            data: A list or array of texts, or a pandas frame with the texts in its first column.
            params: May hold `max_new_tokens`.

        Raises:
            DataInvalidError: If a prompt is not a text.
            RowTooLongError: If a prompt leaves nothing of the model's context for an answer.
        """
        prompts = [render_user_prompt(self._tokenizer, text) for text in _texts(data)]
        max_new_tokens = int((params or {}).get("max_new_tokens", self._max_new_tokens))
        return generate_batch(self._model, self._tokenizer, prompts, max_new_tokens)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> AdaptedModel:
    """What MLflow calls to load a model version whose loader module this is."""
    return AdaptedModel(Path(path), model_config or {})


def _texts(data: object) -> list[str]:
    if isinstance(data, pd.DataFrame):
        data = data.iloc[:, 0]
    values = [data] if isinstance(data, str) else np.ravel(np.asarray(data, dtype=object))
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise DataInvalidError(
                f"prompt {number} is {value!r} ({type(value).__name__}); give a list of texts, "
                "or a frame with the texts in its first column"
            )
    return [str(value) for value in values]
