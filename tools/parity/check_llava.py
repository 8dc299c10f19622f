"""Loads LLaVA folders that `votive export` writes in transformers, which must miss nothing, find nothing that it does not know,
and compute the same as before.

    python tools/parity/check_llava.py --votive target/release/votive

Makes no fixture. Every model of tests/fixtures/llava is written as it is, and llava/llama with its adapter merged.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from common import FIXTURES, read_tensors, torch

from peft import PeftModel
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from llava import CASES, ROWS, inputs_of, per_token_logps

TOLERANCE = 1e-5


def load(folder: Path):
    model, found = LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {what: names for what, names in found.items() if names}
    assert not wrong, f"{folder}: {wrong}"
    return model.eval()


@torch.no_grad()
def log_probs(model, folder: Path, case: Path) -> torch.Tensor:
    """Of all rows, through the processor of `folder`."""
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    tensors = read_tensors(case / "expected" / "images.safetensors")
    images = [tensors[f"image.{n}"].numpy() for n in range(len([name for name in tensors if name.startswith("image.")]))]
    return torch.cat([per_token_logps(model, inputs_of(processor, images, row))[1] for row in ROWS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, default=Path("target/release/votive"), help="the program")
    args = parser.parse_args()
    jobs = [(case, None) for case in CASES] + [("llama", FIXTURES / "llava" / "llama" / "expected" / "adapter")]
    for name, adapter in jobs:
        case = FIXTURES / "llava" / name
        with tempfile.TemporaryDirectory() as parent:
            out = Path(parent) / "out"
            command = [args.votive, "export", case, "--to", "hub", "--out", out]
            if adapter:
                command = [args.votive, "merge", "--model", case, "--adapter", adapter, "--out", out]
            subprocess.run(command, check=True, capture_output=True)
            expected = load(case)
            if adapter:
                expected = PeftModel.from_pretrained(expected, adapter).eval()
            expected = log_probs(expected, case, case)
            worst = (log_probs(load(out), out, case) - expected).abs().max().item()
        assert worst <= TOLERANCE, f"{name}: log-probs differ by {worst}"
        print(f"ok {name}{' merged' if adapter else ''}: log-probs within {worst:.1e}, nothing missing or unexpected", flush=True)


if __name__ == "__main__":
    main()
