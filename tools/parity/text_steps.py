"""One and five DPO steps of plain PyTorch on the tiny models of text/, full and LoRA.

Run text.py first. Writes text_steps/:
  prefs.jsonl              20 rows; step n trains on rows 4n .. 4n + 3, in file order
  batches.safetensors      step<n>.{input_ids, attention_mask, completion_mask}, as TRL pads them
  <run>.json               per step loss, grad_norm (before clipping), and the hyperparameters
  <run>.steps.safetensors  step<n>.{policy_logps, reference_logps}, (2B,), before that step's update
  <full run>.step<1|5>.safetensors
                           weights after one and after five updates, named as in the checkpoint
  <lora run>/start, <lora run>/step1, <lora run>/step5   PEFT adapter folders

Loss: mean over pairs of −log σ(β·margin), or what OBJECTIVES says of a run. AdamW as in torch (weight decay on every
parameter).
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
from pathlib import Path

from common import target_folder, torch, write_json, write_jsonl, write_made_by, write_tensors

import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from text import WORDS, logits_of, per_token_logps, trl_batch

# Both train on the same token ids. (Qwen2 would make a poor fixture: a key bias hardly moves the softmax, so
# its gradient is rounding noise, which Adam's first steps then blow up to the learning rate.)
FULL_MODELS = {
    "full": "llama", "full_tied": "llama_tied", "full_gemma2": "gemma2", "full_phi3": "phi3", "full_olmo2": "olmo2",
}  # fmt: skip
MIXED, DIVERGENT = "full_mixed", "full_tdpo"
FULL_MODELS |= {MIXED: "llama_tied", DIVERGENT: "gemma2"}
LORA_MODELS = {"lora": "llama", "lora_gemma2": "gemma2", "lora_phi3": "phi3", "lora_olmo2": "olmo2"}
TOKENIZER = "llama"
PAIRS, STEPS = 4, 5
SETTINGS = {
    "beta": 0.1, "lr": 5e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "max_grad_norm": 1.0,
    "pairs_per_step": PAIRS, "steps": STEPS,
}  # fmt: skip
# What differs from DPO: its options as a recipe names them. SFT's mean is over the tokens of the chosen completions;
# the first form of TDPO lets the divergence of both sides carry a gradient.
OBJECTIVES = {
    MIXED: {"dpo": {"beta": 0.1, "weight": 0.75}, "sft": {"weight": 0.5}},
    DIVERGENT: {"tdpo": {"beta": 0.1, "alpha": 1.0, "stop_gradient": False}},
}  # fmt: skip
SEPARATE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def lora_settings(model: str) -> dict:
    """alpha / r = 2, so that a forgotten scale shows."""
    return {
        "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "task_type": "CAUSAL_LM",
        "target_modules": FUSED if model == "phi3" else SEPARATE,
    }  # fmt: skip


def preference_rows() -> list:
    draw = random.Random(4)

    def words(low, high):
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    return [
        {"prompt": words(3, 6).capitalize() + ":", "chosen": " " + words(1, 7), "rejected": " " + words(1, 7) + "."}
        for _ in range(PAIRS * STEPS)
    ]


def sequence_kl(policy, reference, batch):
    """Σ_t KL(π_ref ‖ π_θ) over the vocabulary at the completion's tokens, (2B,)."""
    def log_probs(model):
        return logits_of(model, batch["input_ids"], batch["attention_mask"])[:, :-1].log_softmax(-1)

    with torch.no_grad():
        of_reference = log_probs(reference)
    kl = (of_reference.exp() * (of_reference - log_probs(policy))).sum(-1)
    return (kl * batch["completion_mask"][:, 1:]).sum(1)


def loss_of(run: str, policy, reference, batch, policy_logps, reference_logps):
    chosen, rejected = (policy_logps - reference_logps).chunk(2)
    margin = chosen - rejected
    if run == DIVERGENT:
        of_chosen, of_rejected = sequence_kl(policy, reference, batch).chunk(2)
        margin = margin - (of_rejected - of_chosen)
    loss = -F.logsigmoid(SETTINGS["beta"] * margin).mean()
    if run == MIXED:
        half = len(policy_logps) // 2
        tokens = batch["completion_mask"][:half].sum()
        loss = 0.75 * loss - 0.5 * policy_logps[:half].sum() / tokens
    return loss


def train(run: str, policy, reference, without_adapter, batches: list, keep_after: dict) -> tuple[list, dict]:
    """Runs the steps; `keep_after[n]` is called after n updates. Returns the metrics and the log-probs."""
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, lr=SETTINGS["lr"], betas=tuple(SETTINGS["betas"]), eps=SETTINGS["eps"],
        weight_decay=SETTINGS["weight_decay"], foreach=False,
    )  # fmt: skip
    metrics, logps = [], {}
    for step, batch in enumerate(batches):
        policy_logps = per_token_logps(policy, batch).sum(1)
        with torch.no_grad(), without_adapter():
            reference_logps = per_token_logps(reference, batch).sum(1)
        loss = loss_of(run, policy, reference, batch, policy_logps, reference_logps)
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(trainable, SETTINGS["max_grad_norm"], foreach=False)
        optimizer.step()
        metrics.append({"step": step, "loss": loss.item(), "grad_norm": grad_norm.item()})
        logps |= {f"step{step}.policy_logps": policy_logps.detach(), f"step{step}.reference_logps": reference_logps}
        keep_after.get(step + 1, lambda: None)()
    return metrics, logps


def load(model_folder: Path, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype, attn_implementation="eager")


def full_steps(run: str, model_folder: Path, batches: list, dtype=torch.float32):
    policy = load(model_folder, dtype).train()
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    kept = {}

    def keep(count):
        kept[count] = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}

    saves = {n: (lambda n=n: keep(n)) for n in (1, STEPS)}
    metrics, logps = train(run, policy, reference, contextlib.nullcontext, batches, saves)
    return metrics, logps, kept


def distance(weights: dict, exact: dict) -> dict:
    """Largest difference of a weight, after each kept number of updates."""
    return {
        f"step{n}": max((weights[n][name].double() - exact[n][name]).abs().max().item() for name in exact[n])
        for n in exact
    }


def save_adapter(policy, folder: Path, model: str) -> None:
    policy.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    # peft writes a set in no fixed order, and the base model's path on this machine.
    config |= {"base_model_name_or_path": model, "target_modules": sorted(config["target_modules"])}
    write_json(path, config)


def lora_steps(model_folder: Path, batches: list, folder: Path):
    torch.manual_seed(21)
    model = model_folder.name
    policy = get_peft_model(load(model_folder), LoraConfig(**lora_settings(model))).train()
    save_adapter(policy, folder / "start", model)
    saves = {n: (lambda n=n: save_adapter(policy, folder / f"step{n}", model)) for n in (1, STEPS)}
    return train("lora", policy, policy, policy.disable_adapter, batches, saves)


def main() -> None:
    folder = target_folder("text_steps", __doc__)
    models = folder.parent / "text"
    tokenizer = AutoTokenizer.from_pretrained(models / TOKENIZER)
    rows = preference_rows()
    write_jsonl(folder / "prefs.jsonl", rows)
    batches = [trl_batch(rows[PAIRS * step : PAIRS * (step + 1)], tokenizer) for step in range(STEPS)]
    write_tensors(
        folder / "batches.safetensors",
        {f"step{step}.{name}": tensor for step, batch in enumerate(batches) for name, tensor in batch.items()},
    )

    for run, model in FULL_MODELS.items():
        metrics, logps, weights = full_steps(run, models / model, batches)
        _, _, exact = full_steps(run, models / model, batches, torch.float64)
        report = {"model": model, "settings": SETTINGS, "steps": metrics}
        if run in OBJECTIVES:
            report["objective"] = OBJECTIVES[run]
        write_json(folder / f"{run}.json", report | {"float32_against_float64": distance(weights, exact)})
        write_tensors(folder / f"{run}.steps.safetensors", logps)
        for count, tensors in weights.items():
            write_tensors(folder / f"{run}.step{count}.safetensors", tensors)

    for run, model in LORA_MODELS.items():
        metrics, logps = lora_steps(models / model, batches, folder / run)
        report = {"model": model, "settings": SETTINGS, "lora": lora_settings(model), "steps": metrics}
        write_json(folder / f"{run}.json", report)
        write_tensors(folder / f"{run}.steps.safetensors", logps)
    write_made_by(folder, "text_steps.py", ["torch", "transformers", "peft", "trl"], {
        "models": "each run's .json names its model in text/; all train on the token ids of text/llama's tokenizer",
        "optimizer": "torch.optim.AdamW; clip_grad_norm_ before each update; no learning-rate schedule",
        "float32_against_float64": "largest difference of a weight between this run and the same run in float64",
    })  # fmt: skip


if __name__ == "__main__":
    main()
