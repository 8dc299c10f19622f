"""Three DPO steps of plain PyTorch on a tiny LLaVA of llava/, full and LoRA, on batches of TRL's vision collator.

Run llava.py first. Writes llava_steps/:
  prefs.jsonl, *.png       6 rows of conversations about images; step n trains on rows 2n and 2n + 1, in file order
  prefs.parquet            the same rows with the images as `datasets` stores them, one of them by its path, and contents in parts
  batches.safetensors      step<n>.{input_ids, attention_mask, completion_mask}: TRL's rows, padded on the right alone
  <run>.json               per step loss, grad_norm (before clipping), and the hyperparameters
  <run>.steps.safetensors  step<n>.{policy_logps, reference_logps}, (2B,), before that step's update
  lora/start, lora/step1, lora/step3   PEFT adapter folders

Loss and optimizer are those of text_steps.py. Weights of the run full are not kept: biases of the image encoder's keys move
no result, so that their gradients are rounding alone, which Adam blows up to the learning rate.
"""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path

from common import target_folder, torch, write_json, write_jsonl, write_made_by, write_tensors

import pyarrow
import pyarrow.parquet
from clip import draw_images
from peft import LoraConfig, get_peft_model
from PIL import Image
from text_steps import SETTINGS, loss_of, save_adapter
from transformers import AutoProcessor, LlavaForConditionalGeneration
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

MODEL = "llama"
PAIRS, STEPS = 2, 3
IMAGE_SIZES = [(24, 20), (20, 31), (12, 12), (33, 22), (20, 20), (9, 24)]
LORA = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj", "linear_2"]}


def user(content) -> list:
    return [{"role": "user", "content": content}]


def parts(*content) -> list:
    return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in content]


# (images, turns before the answer, chosen, rejected): plain texts, places of their own, several images, a longer talk, none.
TALKS = [
    ([0], user("Name a colour."), "Blue.", "A chair is made of wood."),
    ([1], user(parts("Where is the cat, here", None, "or not?")), "On the mat.", "one two three"),
    ([2, 3], user("Count to two."), "one two", "two"),
    ([4, 0], user(parts(None, "and", None, ": is it warm?")), "It is warm today.", "It is cold."),
    ([5], [{"role": "system", "content": "Be brief."}] + user("Hello") + [{"role": "assistant", "content": "Hi there."}]
     + user("Two lines, please."), "one\ntwo", "one two three four"),
    ([], user("Say nothing."), "nothing", "yellow moon"),
]  # fmt: skip


def rows() -> list:
    def answer(text: str) -> list:
        return [{"role": "assistant", "content": text}]

    return [
        {"images": [f"{n}.png" for n in shown], "prompt": turns, "chosen": answer(good), "rejected": answer(bad)}
        for shown, turns, good, bad in TALKS
    ]


def write_parquet(folder: Path) -> None:
    """Contents of parts have the fields of all kinds, so that some are null; two row groups."""
    part = pyarrow.struct({"type": pyarrow.string(), "text": pyarrow.string()})
    turns = pyarrow.list_(pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.list_(part)}))
    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    schema = pyarrow.schema({"images": pyarrow.list_(image), "prompt": turns, "chosen": turns, "rejected": turns})

    def bare(messages):
        return [
            message | {"content": [{"type": part["type"], "text": part.get("text")} for part in message["content"]]}
            for message in messages
        ]

    stored = []
    for row in rows():
        names = row["images"]
        images = [{"bytes": (folder / name).read_bytes(), "path": name} for name in names]
        stored.append({
            "images": images, "prompt": bare(prepare_multimodal_messages(row["prompt"], images=names)),
            "chosen": bare(prepare_multimodal_messages(row["chosen"])),
            "rejected": bare(prepare_multimodal_messages(row["rejected"])),
        })  # fmt: skip
    stored[3]["images"][0]["bytes"] = None
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(stored, schema), folder / "prefs.parquet", row_group_size=4)


def trl_batch(rows: list, folder: Path, processor) -> dict:
    """The rows as TRL's collator pads them: prompts on the left, completions on the right."""
    opened = [copy.deepcopy(row) | {"images": [Image.open(folder / name) for name in row["images"]]} for row in rows]
    return DataCollatorForVisionPreference(processor)(opened)


def padded_right(batch: dict, pad: int) -> dict:
    """The rows without the padding between prompt and completion."""
    kept = batch["attention_mask"].bool()
    width = int(kept.sum(1).max())
    fills = {"input_ids": pad, "attention_mask": 0, "completion_mask": 0}
    return {
        name: torch.stack([
            torch.nn.functional.pad(row[mask], (0, width - int(mask.sum())), value=fill)
            for row, mask in zip(batch[name], kept)
        ])
        for name, fill in fills.items()
    }  # fmt: skip


def logps_of(model, batch: dict):
    inputs = {name: value for name, value in batch.items() if name != "completion_mask"}
    logits = model(**inputs, use_cache=False).logits
    logps = logits[:, :-1].float().log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return (logps * batch["completion_mask"][:, 1:]).sum(1)


def train(policy, reference, without_adapter, batches: list, keep) -> tuple[list, dict]:
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, lr=SETTINGS["lr"], betas=tuple(SETTINGS["betas"]), eps=SETTINGS["eps"],
        weight_decay=SETTINGS["weight_decay"], foreach=False,
    )  # fmt: skip
    steps, logps = [], {}
    for step, batch in enumerate(batches):
        policy_logps = logps_of(policy, batch)
        with torch.no_grad(), without_adapter():
            reference_logps = logps_of(reference, batch)
        loss = loss_of("dpo", policy, reference, batch, policy_logps, reference_logps)
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(trainable, SETTINGS["max_grad_norm"], foreach=False)
        optimizer.step()
        steps.append({"step": step, "loss": loss.item(), "grad_norm": grad_norm.item()})
        logps |= {f"step{step}.policy_logps": policy_logps.detach(), f"step{step}.reference_logps": reference_logps}
        if step + 1 in (1, STEPS):
            keep(step + 1)
    return steps, logps


def load(folder: Path):
    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train()


def write_runs(folder: Path, name: str, load, processor, images: Path, lora: dict) -> None:
    """Both runs of the model `name` that `load` gives, on batches of the rows whose images are in `images`."""
    batches = [trl_batch(rows()[PAIRS * step : PAIRS * (step + 1)], images, processor) for step in range(STEPS)]
    right = [padded_right(batch, processor.tokenizer.pad_token_id) for batch in batches]
    write_tensors(
        folder / "batches.safetensors",
        {f"step{step}.{name}": tensor for step, batch in enumerate(right) for name, tensor in batch.items()},
    )
    settings = SETTINGS | {"pairs_per_step": PAIRS, "steps": STEPS}

    policy = load()
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    steps, logps = train(policy, reference, contextlib.nullcontext, batches, lambda count: None)
    write_json(folder / "full.json", {"model": name, "settings": settings, "steps": steps})
    write_tensors(folder / "full.steps.safetensors", logps)

    torch.manual_seed(23)
    policy = get_peft_model(load(), LoraConfig(**lora))
    save_adapter(policy, folder / "lora" / "start", name)
    steps, logps = train(
        policy, policy, policy.disable_adapter, batches,
        lambda count: save_adapter(policy, folder / "lora" / f"step{count}", name),
    )  # fmt: skip
    write_tensors(folder / "lora.steps.safetensors", logps)
    write_json(folder / "lora.json", {"model": name, "settings": settings, "lora": lora, "steps": steps})


def main() -> None:
    folder = target_folder("llava_steps", __doc__)
    model = folder.parent / "llava" / MODEL
    for n, image in enumerate(draw_images(8, IMAGE_SIZES)):
        Image.fromarray(image).save(folder / f"{n}.png")
    write_jsonl(folder / "prefs.jsonl", rows())
    write_parquet(folder)
    processor = AutoProcessor.from_pretrained(model, backend="pil")
    write_runs(folder, MODEL, lambda: load(model), processor, folder, LORA)
    write_made_by(folder, "llava_steps.py", ["torch", "transformers", "peft", "trl", "pillow", "pyarrow"])


if __name__ == "__main__":
    main()
