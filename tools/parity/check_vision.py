"""Loads folders of models that see images, as `votive export` and `votive merge` write them, in transformers, which must miss
nothing, find nothing that it does not know, and compute the same as before.

    python tools/parity/check_vision.py --votive target/release/votive

Makes no fixture. Every model of tests/fixtures/llava and qwen3_vl is written as it is, and those with an adapter with it merged.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from common import FIXTURES, read_tensors, torch

import llava
import qwen3_vl
from llava import inputs_of, per_token_logps
from peft import PeftModel
from transformers import AutoProcessor, LlavaForConditionalGeneration, Qwen3VLForConditionalGeneration

TOLERANCE = 1e-5
# family: what its script says of it, transformers' class, how a processor is read
FAMILIES = {
    "llava": (llava, LlavaForConditionalGeneration, lambda folder: AutoProcessor.from_pretrained(folder, backend="pil")),
    "qwen3_vl": (qwen3_vl, Qwen3VLForConditionalGeneration, qwen3_vl.read_processor),
}


def load(family: str, folder: Path):
    model, found = FAMILIES[family][1].from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {what: names for what, names in found.items() if names}
    assert not wrong, f"{folder}: {wrong}"
    return model.eval()


@torch.no_grad()
def log_probs(family: str, model, folder: Path, case: Path) -> torch.Tensor:
    """Of all rows, through the processor of `folder`."""
    script, _, read_processor = FAMILIES[family]
    processor = read_processor(folder)
    tensors = read_tensors(case / "expected" / "images.safetensors")
    images = [tensors[f"image.{n}"].numpy() for n in range(len([name for name in tensors if name.startswith("image.")]))]
    return torch.cat([per_token_logps(model, inputs_of(processor, images, row))[1] for row in script.ROWS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, default=Path("target/release/votive"), help="the program")
    args = parser.parse_args()
    cases = [(family, FIXTURES / family / case) for family, (script, *_) in FAMILIES.items() for case in script.CASES]
    jobs = [(family, case, None) for family, case in cases]
    jobs += [(family, case, case / "expected" / "adapter") for family, case in cases if (case / "expected" / "adapter").exists()]
    for family, case, adapter in jobs:
        with tempfile.TemporaryDirectory() as parent:
            out = Path(parent) / "out"
            command = [args.votive, "export", case, "--to", "hub", "--out", out]
            if adapter:
                command = [args.votive, "merge", "--model", case, "--adapter", adapter, "--out", out]
            subprocess.run(command, check=True, capture_output=True)
            expected = load(family, case)
            if adapter:
                expected = PeftModel.from_pretrained(expected, adapter).eval()
            expected = log_probs(family, expected, case, case)
            worst = (log_probs(family, load(family, out), out, case) - expected).abs().max().item()
        name = f"{family}/{case.name}{' merged' if adapter else ''}"
        assert worst <= TOLERANCE, f"{name}: log-probs differ by {worst}"
        print(f"ok {name}: log-probs within {worst:.1e}, nothing missing or unexpected", flush=True)


if __name__ == "__main__":
    main()
