"""Reward models: transformers' sequence classification with one label, and TRL's RewardTrainer, on the tiny models of text/.

Run text.py first. Writes reward_models/:
  <model>.safetensors      for every model of text/: score.weight, and the rewards of rows of token ids, padded with the
                           padding token and (rewards_of_eos) with the end-of-text token as padding
  <model>/                 a whole reward model as transformers saves it, for the runs
  prefs.jsonl              20 rows with margins; step n trains on rows 4n .. 4n + 3, in file order
  batches.safetensors      step<n>.{input_ids, attention_mask}, as TRL's collator pads them, chosen rows first
  <run>.json               per step loss, grad_norm (before clipping) and TRL's metrics, and the hyperparameters
  <run>.steps.safetensors  step<n>.policy_rewards, (2B,), before that step's update
  <full run>.step<1|5>.safetensors                       weights after one and after five updates
  <lora run>/start, <lora run>/step1, <lora run>/step5   PEFT adapter folders

Training is `RewardTrainer.train` itself, on rows in file order, with torch's AdamW and no weight decay (transformers leaves
norms out of it).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from common import target_folder, torch, write_json, write_jsonl, write_made_by, write_tensors

import datasets
from peft import LoraConfig
from torch.utils.data import SequentialSampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer

from text import MODELS, VOCABULARY
from text_steps import PAIRS, STEPS, TOKENIZER, lora_settings, preference_rows, save_adapter

# ε is large enough that a gradient of nearly 0, which Adam divides by its own size, does not move a weight by rounding alone.
SETTINGS = {
    "lr": 5e-4, "betas": [0.9, 0.999], "eps": 1e-6, "weight_decay": 0.0, "max_grad_norm": 1.0,
    "pairs_per_step": PAIRS, "steps": STEPS,
}  # fmt: skip
MARGIN = {"with.margin_offset.gamma": 0.0, "with.margin_offset.alpha": 1.0}
CENTER = {"with.center_rewards.coefficient": 0.01}
# name: (model, reads margins, TRL's coefficient, adapter, the objective's options as a recipe has them)
RUNS = {
    "full": ("llama", False, None, False, {}),
    "full_gemma2": ("gemma2", False, None, False, {}),
    "full_margin": ("llama", True, None, False, MARGIN),
    "full_center": ("llama", False, 0.01, False, CENTER),
    "full_margin_center": ("gemma2", True, 0.01, False, MARGIN | CENTER),
    "lora": ("llama", False, None, True, {}),
}
# Whose weights are kept: the others differ in their losses alone.
KEPT = ["full", "full_gemma2", "lora"]
METRICS = ["loss", "grad_norm", "accuracy", "margin", "min_reward", "mean_reward", "max_reward", "num_tokens"]


def load(folder: Path, **options):
    return AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, attn_implementation="eager", **options
    )


def with_head(folder: Path, seed: int):
    """The body of a language model under a head that is drawn here."""
    model = load(folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.score.weight.copy_(0.5 * torch.randn(model.score.weight.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def expected(folder: Path, seed: int) -> dict:
    """Rewards row by row, so that the length of no other row decides the angles of LongRoPE."""
    model, tokenizer = with_head(folder, seed), AutoTokenizer.from_pretrained(folder)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    generator = torch.Generator().manual_seed(seed)
    lengths = [23, 9, 30, 1]
    ids = torch.full((len(lengths), max(lengths)), pad)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, VOCABULARY, (length,), generator=generator)
        ids[row, length - 1] = eos
    rewards = {}
    for name, id in {"rewards": pad, "rewards_of_eos": eos}.items():
        model.config.pad_token_id = id
        rows = [model(input_ids=ids[row : row + 1, :length]).logits[0, 0] for row, length in enumerate(lengths)]
        rewards[name] = torch.stack(rows)
    return {"score.weight": model.score.weight, "input_ids": ids, "lengths": torch.tensor(lengths)} | rewards


class Recorder(RewardTrainer):
    """TRL's trainer on rows in their order, which notes what it sees."""

    def _get_train_sampler(self, *_ignored, **_options):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, *args, **options):
        step = len(self.seen)
        batch = {f"step{step}.{name}": inputs[name].clone() for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            rewards = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
        loss = super().compute_loss(model, inputs, *args, **options)
        self.seen.append((batch, rewards, loss.item()))
        return loss


class Saves(TrainerCallback):
    def __init__(self, saves: dict):
        self.saves, self.logs = saves, []

    def on_step_end(self, args, state, control, model=None, **_ignored):
        self.saves.get(state.global_step, lambda model: None)(model)

    def on_log(self, args, state, control, logs=None, **_ignored):
        if "grad_norm" in logs:
            self.logs.append(dict(logs))


def train(run: str, folder: Path, rows: list, tokenizer):
    model_name, has_margins, center, has_adapter, options = RUNS[run]
    model = load(folder / model_name)
    rows = rows if has_margins else [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows]
    kept, lora = {}, None
    if has_adapter:
        # Without a task type PEFT does not make the head trainable: TRL's users say SEQ_CLS.
        lora = LoraConfig(**lora_settings(model_name) | {"task_type": "SEQ_CLS"})

    def keep(count, model):
        if run not in KEPT:
            return
        if has_adapter:
            save_adapter(model, folder / run / f"step{count}", model_name)
        else:
            kept[count] = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    saves = Saves({n: (lambda model, n=n: keep(n, model)) for n in (1, STEPS)})
    with tempfile.TemporaryDirectory() as scratch:
        args = RewardConfig(
            output_dir=scratch, per_device_train_batch_size=PAIRS, max_steps=STEPS, learning_rate=SETTINGS["lr"],
            adam_beta1=SETTINGS["betas"][0], adam_beta2=SETTINGS["betas"][1], adam_epsilon=SETTINGS["eps"],
            weight_decay=SETTINGS["weight_decay"], max_grad_norm=SETTINGS["max_grad_norm"], lr_scheduler_type="constant",
            optim="adamw_torch", optim_args="foreach=False", logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
            bf16=False, gradient_checkpointing=False, disable_tqdm=True, center_rewards_coefficient=center, seed=21,
        )  # fmt: skip
        trainer = Recorder(
            model, args, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora,
            callbacks=[saves],
        )  # fmt: skip
        trainer.seen = []
        if has_adapter:
            save_adapter(trainer.model, folder / run / "start", model_name)
        trainer.train()
    batches, rewards = {}, {}
    for step, (batch, said, _) in enumerate(trainer.seen):
        batches |= batch
        rewards[f"step{step}.policy_rewards"] = said
    # transformers rounds the losses that it logs.
    metrics = [
        {"step": step} | {name: log[name] for name in METRICS} | {"loss": loss}
        for step, (log, (_, _, loss)) in enumerate(zip(saves.logs, trainer.seen))
    ]
    assert len(metrics) == len(trainer.seen) == STEPS
    report = {"model": model_name, "settings": SETTINGS, "objective": {"bradley_terry": options}, "steps": metrics}
    if has_adapter:
        report["lora"] = lora_settings(model_name)
    write_json(folder / f"{run}.json", report)
    write_tensors(folder / f"{run}.steps.safetensors", rewards)
    for count, tensors in kept.items():
        write_tensors(folder / f"{run}.step{count}.safetensors", tensors)
    return batches


def main() -> None:
    folder = target_folder("reward_models", __doc__)
    models = folder.parent / "text"
    datasets.disable_progress_bars()
    datasets.disable_caching()
    for seed, name in enumerate(MODELS, start=31):
        write_tensors(folder / f"{name}.safetensors", expected(models / name, seed))
    tokenizer = AutoTokenizer.from_pretrained(models / TOKENIZER)
    for seed, name in enumerate(sorted({run[0] for run in RUNS.values()}), start=51):
        model = with_head(models / name, seed)
        model.config.pad_token_id = tokenizer.pad_token_id
        model.save_pretrained(folder / name)
    # Margins above, at and below 0: TRL subtracts them whatever they are.
    rows = [row | {"margin": 0.5 * (index % 5 - 1)} for index, row in enumerate(preference_rows())]
    write_jsonl(folder / "prefs.jsonl", rows)
    batches = [train(run, folder, rows, tokenizer) for run in RUNS]
    for others in batches[1:]:
        assert all(torch.equal(others[name], tensor) for name, tensor in batches[0].items())
    write_tensors(folder / "batches.safetensors", batches[0])
    write_made_by(folder, "reward_models.py", ["torch", "transformers", "peft", "trl"], {
        "models": "<model>.safetensors: the body is text/<model>; the runs' models are the folders here, with the tokenizer of "
        "text/llama",
        "metrics": "as TRL logs them, but for the loss, which transformers rounds",
    })  # fmt: skip


if __name__ == "__main__":
    main()
