# %% [markdown]
# # Train, look into and reload a HypLoRA adapter
#
# The adapter library alone: torch, transformers, peft and hyplora. Cells run in any editor that
# knows `# %%`, and the file runs as a script:
#
#     python docs/examples/train_adapter.py [BASE_MODEL] [FOLDER]
#
# BASE_MODEL is a Hugging Face id or a local folder; FOLDER is where the adapter is saved.

# %%
import sys
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hyplora import HypLoraConfig, hotswap_adapter, record_geometry

arguments = [a for a in sys.argv[1:] if not a.startswith("-")]  # a notebook's kernel has its own
BASE_MODEL = arguments[0] if arguments else "HuggingFaceTB/SmolLM2-135M-Instruct"
FOLDER = Path(arguments[1] if len(arguments) > 1 else "capitals-adapter")
torch.manual_seed(0)


# %% [markdown]
# ## The task
#
# Eight facts to learn by heart. Labels of -100 keep the question out of the loss.

# %%
FACTS = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "Norway": "Oslo",
    "Egypt": "Cairo",
    "Cuba": "Havana",
    "Fiji": "Suva",
}
tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)


def load_base_model() -> PreTrainedModel:
    """The frozen model that adapters are put on."""
    return AutoModelForCausalLM.from_pretrained(BASE_MODEL, dtype=torch.float32)


def encode(country: str, capital: str) -> tuple[Tensor, Tensor]:
    """Token ids of a question with its answer, and the labels to learn."""
    question = tokenizer(f"The capital of {country} is", return_tensors="pt").input_ids
    answer = tokenizer(f" {capital}", return_tensors="pt", add_special_tokens=False).input_ids
    labels = torch.cat([torch.full_like(question, -100), answer], dim=1)
    return torch.cat([question, answer], dim=1), labels


rows = [encode(country, capital) for country, capital in FACTS.items()]


@torch.no_grad()
def mean_loss(model: torch.nn.Module) -> float:
    """Mean loss over the answers, in nats a token."""
    model.eval()
    losses = [model(input_ids=ids, labels=labels).loss.item() for ids, labels in rows]
    return sum(losses) / len(losses)


# %% [markdown]
# ## The adapter
#
# LoRA's settings, and one more: the curvature K. Small values bend space more, large ones approach
# LoRA. Here every layer learns its own, from 0.1 on. Everything that PEFT does with LoRA, such as
# patterns per layer, `modules_to_save` or gradient checkpointing, it does with this.

# %%
config = HypLoraConfig(
    r=8,
    alpha=16,
    target_modules="all-linear",
    curvature=0.1,
    learn_curvature=True,
    task_type="CAUSAL_LM",
)
model = get_peft_model(load_base_model(), config)
model.print_trainable_parameters()
print(f"loss before: {mean_loss(model):.3f}")


# %% [markdown]
# ## The training
#
# A plain loop. Weight decay would pull a learned K towards 1, so it gets none.

# %%
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.0)
for step in range(1, 13):
    model.train()
    for ids, labels in rows:
        (model(input_ids=ids, labels=labels).loss / len(rows)).backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if step % 3 == 0:
        print(f"step {step}: loss {mean_loss(model):.3f}")


# %% [markdown]
# ## A look inside
#
# What the geometry does to the tokens that pass, layer by layer: how far out they lie in radii of
# the hyperboloid, and by how much the update differs from LoRA's.

# %%
with record_geometry(model) as record:
    mean_loss(model)
for name, layer in list(record.read().items())[:7]:
    print(
        f"{name.removeprefix('base_model.model.model.layers.'):24} K {layer.curvature:.3f}  "
        f"radius {layer.mean_radius:.2f}  gain {layer.mean_gain:.3f} (up to {layer.max_gain:.3f})  "
        f"capped {layer.cap_rate:.1%}"
    )


# %% [markdown]
# ## Save and reload
#
# Two files: `adapter_config.json` and `adapter_model.safetensors`. A process that has not imported
# hyplora refuses them; it does not take them for a LoRA.

# %%
model.save_pretrained(FOLDER)
reloaded = PeftModel.from_pretrained(load_base_model(), FOLDER)
ids, _ = rows[0]
with torch.no_grad():
    same = torch.equal(model.eval()(ids).logits, reloaded(ids).logits)
print(f"reloaded adapter answers identically: {same}")


# %% [markdown]
# ## Several adapters at once
#
# Rows of one batch may have an adapter each; `__base__` is none.

# %%
model.add_adapter("flat", HypLoraConfig(curvature=1e4, init_weights=False, task_type="CAUSAL_LM"))
with torch.no_grad():
    batch = torch.cat([ids, ids, ids])
    logits = model(batch, adapter_names=["default", "flat", "__base__"]).logits
print(f"three rows, three answers: {len(logits.unique(dim=0)) == 3}")
hotswap_adapter(model, FOLDER, "default")  # puts a saved adapter in its place, K and all


# %% [markdown]
# ## Merging
#
# The gain differs from token to token, so that no fixed matrix equals the adapter, and `merge` is
# refused. The nearest matrices can be had, with their error; here on the training rows, for a real
# model on some thousand tokens like those that it will see.

# %%
merge = reloaded.approximate_merge([{"input_ids": ids} for ids, _ in rows])
print(f"merged with a relative error of {merge.relative_error:.1%} of the update")
print(f"loss with the adapter {mean_loss(model):.3f}, merged {mean_loss(merge.model):.3f}")
