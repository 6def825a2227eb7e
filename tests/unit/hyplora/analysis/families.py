"""Tiny models of every family of the paper, with tied embeddings and without."""

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 61
FAMILIES = ["llama", "gemma", "gemma3", "gemma3-with-vision", "qwen2"]


def make_tiny(family: str, *, is_tied: bool = False) -> PreTrainedModel:
    """Make a random model of two blocks, in evaluation mode."""
    torch.manual_seed(0)
    if family == "llama":
        return LlamaForCausalLM(_config(LlamaConfig, is_tied)).eval()
    if family == "qwen2":
        return Qwen2ForCausalLM(_config(Qwen2Config, is_tied)).eval()
    if family == "gemma":
        return GemmaForCausalLM(_config(GemmaConfig, is_tied)).eval()
    text = _config(Gemma3TextConfig, is_tied)
    if family == "gemma3":
        return Gemma3ForCausalLM(text).eval()
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "image_size": 16,
        "patch_size": 8,
    }
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config).eval()


def _config(kind: type[PretrainedConfig], is_tied: bool) -> PretrainedConfig:
    return kind(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=is_tied,
    )
