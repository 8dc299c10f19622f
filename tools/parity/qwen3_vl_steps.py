"""Three DPO steps of plain PyTorch on a tiny Qwen3-VL of qwen3_vl/, full and LoRA, on batches of TRL's vision collator.

Run qwen3_vl.py and llava_steps.py first: rows and images are those of llava_steps/, which come out as images of different sizes
here. Writes qwen3_vl_steps/, whose files are those of llava_steps/ without the rows.
"""

from __future__ import annotations

from common import target_folder, write_made_by

from llava_steps import LORA, write_runs
from qwen3_vl import load, read_processor

MODEL = "new"


def main() -> None:
    folder = target_folder("qwen3_vl_steps", __doc__)
    model = folder.parent / "qwen3_vl" / MODEL
    lora = LORA | {"target_modules": ["q_proj", "v_proj", "linear_fc2"]}
    images = folder.parent / "llava_steps"
    write_runs(folder, MODEL, lambda: load(model).train(), read_processor(model), images, lora)
    write_made_by(folder, "qwen3_vl_steps.py", ["torch", "transformers", "peft", "trl", "pillow"])


if __name__ == "__main__":
    main()
