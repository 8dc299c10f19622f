"""The peak memory of `votive train` beside what `votive plan` says, for several settings of a recipe.

    python tools/memory/check.py [--votive target/release/votive] [--recipe FILE.toml] [--set KEY=VALUE ...] [--only NAME ...]

Each row is a run of two steps in a folder that is thrown away; the peak is the resident memory that the kernel notes for
the process (`ru_maxrss`). Exits with 1 if a prediction is off by more than 15 %. After a change of what an operation keeps,
adapt the constants in `crates/votive-train/src/memory.rs` and below `memory/` until it does not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.15
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def settings(is_image: bool) -> dict[str, list[str]]:
    targets = [] if is_image else [f"adapter.lora.targets={json.dumps(TEXT_TARGETS)}"]
    lora = ["adapter.lora.rank=16", "reference.kind=adapter_off", *targets]
    found = {
        "full": [],
        "full, one row at a time": ["train.micro_batch_size=1"],
        "LoRA": lora,
        "LoRA, one row at a time": [*lora, "train.micro_batch_size=1"],
    }
    if not is_image:
        short = ["data.max_length=48", "data.long_rows=truncate"]
        found |= {
            "full, cached reference": ["reference.kind=cached"],
            "full, recomputed": ["train.recompute=true"],
            "LoRA, recomputed": [*lora, "train.recompute=true"],
            "full, short rows": short,
            "LoRA, default targets": lora[:2],
        }
    return found


def arguments(overrides: list[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def predicted(votive: Path, recipe: Path, overrides: list[str]) -> float:
    command = [votive, "--quiet", "--json", "plan", recipe, *arguments(overrides)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["memory"]["peak"]


def measured(votive: Path, recipe: Path, overrides: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [votive, "--quiet", "train", recipe, "--out", f"{folder}/run", *arguments(overrides)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, default=ROOT / "target/release/votive")
    parser.add_argument("--recipe", type=Path, default=ROOT / "examples/recipes/text/dpo.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--only", nargs="*", metavar="NAME")
    options = parser.parse_args()
    text = options.recipe.read_text()
    is_image = "[diffusion]" in text or "[rollout]" in text
    is_off = False
    print("| setting | predicted, MiB | measured, MiB | ratio |\n| --- | --- | --- | --- |")
    for name, own in settings(is_image).items():
        if options.only and name not in options.only:
            continue
        # The batch of a short run is the whole of a small one, so that the longest row is in it.
        overrides = [*own, *options.overrides, "train.steps=2"]
        plan, run = (f(options.votive, options.recipe, overrides) / 2**20 for f in (predicted, measured))
        is_off |= abs(plan / run - 1) > TOLERANCE
        print(f"| {name} | {plan:.0f} | {run:.0f} | {plan / run:.2f} |", flush=True)
    sys.exit(is_off)


if __name__ == "__main__":
    main()
