"""What an adapter costs: HypLoRA beside PEFT's LoRA and DoRA, and beside its own explicit maps.

    python tests/benchmarks/adapter.py [--device cuda] [--shape llama3-8b --layers 2] [--json FILE]

Needs torch, transformers, peft and hyplora. The model is a Llama with random weights, by default of
SmolLM2-135M's shape, every linear layer of its blocks adapted. In each round every method runs
once, in an order that rotates, and is compared with LoRA in the same round; the table has medians
over the rounds and their middle half. The last line is `RESULT {json}`, each figure the worst over
the dtypes measured:

    train_step_vs_lora           forward, backward and AdamW step of the whole model
    peak_memory_vs_lora          most bytes in tensors during such a step, weights included
    decode_vs_lora               greedy generation with a cache, adapter not merged
    dora_vs_lora                 PEFT's DoRA, training step
    added_cost_vs_explicit_maps  (HypLoRA - base) / (explicit maps - base), training step
"""

import argparse
import gc
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import peft
import torch
import transformers
from machine import machine
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from hyplora import HypLoraConfig
from hyplora.tuner.layer import HypLoraLinear

VOCABULARY = 4096  # a large head would only hide the layers
SHAPES = {
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "llama3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
METHODS = ["lora", "hyplora", "base", "dora", "explicit maps"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ExplicitMaps(HypLoraLinear):
    """One map after the other on d-wide float32 tensors, as one writes it down first.

    `hyplora.geometry.lorentz` has the same maps with more care at the extremes, which costs more.
    """

    def add_update(self, output: Tensor, x: Tensor, adapter_name: str) -> Tensor:
        """Add the update of the Lorentz maps."""
        scale = self.hyplora_settings[adapter_name].scale
        unit = scale.projection.unit(self.curvature(adapter_name), self.norm_scale(adapter_name))
        x = x.float()
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-6)
        radius = (norm / unit).clamp(max=scale.projection.radius_cap)
        space = unit * torch.sinh(radius) * (x / norm)
        moved = linear(linear(space, self.hyplora_A[adapter_name]), self.hyplora_B[adapter_name])
        length = torch.linalg.vector_norm(moved, dim=-1, keepdim=True).clamp(min=1e-6)
        update = unit * torch.asinh(length / unit) * (moved / length)
        return (output + scale.scaling * update).to(output.dtype)


def build(method: str, options: argparse.Namespace, dtype: torch.dtype) -> nn.Module:
    """Make a model with an adapter whose B is not zero, as in the midst of a training."""
    torch.manual_seed(0)
    shape = SHAPES[options.shape] | (
        {"num_hidden_layers": options.layers} if options.layers else {}
    )
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=2048, **shape)
    model = LlamaForCausalLM(config).to(dtype).to(options.device)
    model.requires_grad_(False)
    targets = {"r": options.rank, "target_modules": "all-linear"}
    if method == "base":
        return model
    if method in ("lora", "dora"):
        lora = LoraConfig(
            lora_alpha=16, init_lora_weights=False, use_dora=method == "dora", **targets
        )
        return get_peft_model(model, lora)
    adapted = get_peft_model(model, HypLoraConfig(alpha=16, init_weights=False, **targets))
    for module in adapted.modules():
        if isinstance(module, HypLoraLinear) and method == "explicit maps":
            module.__class__ = ExplicitMaps
    return adapted


def training_step(model: nn.Module, tokens: Tensor) -> Callable[[], None]:
    """One step on a batch; of the base model, its forward and backward pass to the embeddings."""
    model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-5, fused=True) if trainable else None
    embed = model.get_input_embeddings()

    def step() -> None:
        embeds = embed(tokens)
        if optimizer is None:
            embeds.requires_grad_()
        model(inputs_embeds=embeds, labels=tokens, use_cache=False).loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


def generation(model: nn.Module, prompt: Tensor, num_tokens: int) -> Callable[[], None]:
    """Greedy decoding of a fixed number of tokens."""
    model.eval()
    greedy = GenerationConfig(
        max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False, pad_token_id=0
    )
    return lambda: model.generate(input_ids=prompt, generation_config=greedy)


def seconds_by_method(
    runs: dict[str, Callable[[], None]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Run every method once a round, each round from another one on."""
    seconds = defaultdict[str, list[float]](list)
    names = list(runs)
    for name in names:
        runs[name]()
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            gc.collect()
            _wait(device)
            started = time.perf_counter()
            runs[name]()
            _wait(device)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def peak_bytes(model: nn.Module, step: Callable[[], None], device: str) -> int:
    """Most bytes in tensors during a step: weights, optimizer state, activations."""
    step()
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return weights + 2 * trainable + most  # AdamW keeps two moments


def ratio(
    seconds: dict[str, list[float]], method: str, reference: str
) -> tuple[float, float, float]:
    """Median and quartiles of a method's time over another's in the same round."""
    pairs = zip(seconds[method], seconds[reference], strict=True)
    low, middle, high = statistics.quantiles([ours / theirs for ours, theirs in pairs], n=4)
    return middle, low, high


def measure(options: argparse.Namespace, dtype_name: str) -> dict[str, dict[str, float]]:
    """Measure all methods in one dtype and print the tables."""
    dtype = DTYPES[dtype_name]
    models = {name: build(name, options, dtype) for name in METHODS}
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch, options.time)
    tokens = torch.randint(3, VOCABULARY, shape, generator=generator).to(options.device)
    steps = {name: training_step(model, tokens) for name, model in models.items()}
    memory = {name: peak_bytes(models[name], steps[name], options.device) for name in models}
    figures: dict[str, dict[str, float]] = {
        "peak memory": {name: memory[name] / memory["lora"] for name in models}
    }
    timings = {"training step": seconds_by_method(steps, options.rounds, options.device)}
    for batch in options.decode_batches:
        prompt = tokens[:1, :16].expand(batch, -1)
        decoding = {
            name: generation(model, prompt, options.new_tokens) for name, model in models.items()
        }
        rounds = max(4, options.rounds // 2)
        timings[f"decode, batch {batch}"] = seconds_by_method(decoding, rounds, options.device)
    print(f"\n{options.shape}, {dtype_name}, batch {options.batch} x {options.time} tokens\n")
    print("| | method | seconds | x LoRA | middle half |\n| --- | --- | --- | --- | --- |")
    for what, seconds in timings.items():
        figures[what] = {}
        for name in models:
            middle, low, high = ratio(seconds, name, "lora")
            figures[what][name] = middle
            typical = statistics.median(seconds[name])
            print(f"| {what} | {name} | {typical:.3f} | {middle:.3f} | {low:.3f} - {high:.3f} |")
    for name, size in memory.items():
        print(f"| peak memory | {name} | {size / 2**20:.0f} MiB | {size / memory['lora']:.3f} | |")
    step = timings["training step"]
    rounds = zip(step["hyplora"], step["explicit maps"], step["base"], strict=True)
    added = [(ours - base) / (maps - base) for ours, maps, base in rounds]
    figures["added cost"] = {"hyplora": statistics.median(added)}
    return figures


def result_of(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Condense to the worst figure over the dtypes."""

    def worst(what: str, method: str) -> float:
        return round(
            max(
                value[method]
                for by_what in figures.values()
                for name, value in by_what.items()
                if name.startswith(what)
            ),
            3,
        )

    return {
        "train_step_vs_lora": worst("training step", "hyplora"),
        "peak_memory_vs_lora": worst("peak memory", "hyplora"),
        "decode_vs_lora": worst("decode", "hyplora"),
        "dora_vs_lora": worst("training step", "dora"),
        "added_cost_vs_explicit_maps": worst("added cost", "hyplora"),
    }


def machine_of(device: str) -> str:
    """Name what computes in words."""
    return torch.cuda.get_device_name() if device == "cuda" else machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shape", default="smollm2-135m", choices=sorted(SHAPES))
    parser.add_argument("--layers", type=int, help="blocks, by default the shape's")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--time", type=int, default=64, help="tokens a row")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--decode-batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, help="CPU threads, by default torch's")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine_of(options.device),
        "threads": torch.get_num_threads(),
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"peft {peft.__version__}",
        "shape": options.shape,
        "layers": options.layers or SHAPES[options.shape]["num_hidden_layers"],
        "rank": options.rank,
        "batch": [options.batch, options.time],
        "rounds": options.rounds,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    figures = {name: measure(options, name) for name in options.dtypes}
    result = result_of(figures)
    if options.json:
        content = {**about, "ratios": figures, "result": result}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"RESULT {json.dumps(result)}")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
