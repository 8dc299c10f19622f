"""Reward models that `votive train` saves, in transformers and PEFT.

On a model of every architecture a few steps are trained, whole or under an adapter; then transformers (or PEFT over transformers) loads
the folder, which must lack nothing and have nothing left over, and its rewards are compared with those of `votive score`.

  python tools/parity/check_reward_models.py --votive target/release/votive
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from common import FIXTURES, torch, write_jsonl

from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from check_models import votive
from text import MODELS, PREFS, trl_batch

# Rewards are up to 10, sums of a few dozen numbers in float32.
REWARDS = 3e-5
ADAPTERS = {"": "", "adapter": '[adapter.lora]\nrank = 4\ntargets = "all-linear"\n'}


def load(folder: Path):
    """A reward model without a word of weights that are missing, unexpected or misshapen."""
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    return model


@torch.no_grad()
def rewards(model, tokenizer) -> list[float]:
    batch = trl_batch(PREFS, tokenizer)
    rows = zip(batch["input_ids"], batch["attention_mask"].sum(1))
    return [model(input_ids=ids[None, :length]).logits.item() for ids, length in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, default=Path("target/release/votive"), help="the program")
    program = parser.parse_args().votive
    failed = []
    for name in MODELS:
        for kind, adapter in ADAPTERS.items():
            model = FIXTURES / "text" / name
            with tempfile.TemporaryDirectory() as folder:
                folder = Path(folder)
                rows, recipe, out = folder / "rows.jsonl", folder / "recipe.toml", folder / "scores.jsonl"
                write_jsonl(rows, PREFS)
                recipe.write_text(
                    f"model.path = {json.dumps(str(model))}\ndata.path = {json.dumps(str(rows))}\n{adapter}"
                    "[objective.bradley_terry]\n[optimizer]\nlr = 5e-3\n[train]\nsteps = 6\nbatch_size = 4\n"
                )
                votive(program, "train", recipe, "--out", folder / "run", "--json")
                final = folder / "run" / "final"
                tokenizer = AutoTokenizer.from_pretrained(final)
                scored = ["--model", model, "--adapter", final] if kind else ["--model", final]
                votive(program, "score", *scored, "--data", rows, "--out", out, "--json")
                scores = [json.loads(line) for line in out.read_text().splitlines()]
                if kind:
                    base = AutoModelForSequenceClassification.from_pretrained(
                        model, num_labels=1, dtype=torch.float32, attn_implementation="eager"
                    )
                    base.config.pad_token_id = tokenizer.pad_token_id
                    network = PeftModel.from_pretrained(base, final).eval()
                    assert type(network).__name__ == "PeftModelForSequenceClassification"
                else:
                    network = load(final).eval()
                expected = rewards(network, tokenizer)
            found = [score["chosen_reward"] for score in scores] + [score["rejected_reward"] for score in scores]
            worst = max(abs(a - b) for a, b in zip(found, expected, strict=True))
            spread = max(expected) - min(expected)
            ok = worst <= REWARDS and spread > 100 * REWARDS
            case = f"{name} {kind}".strip()
            print(f"{'ok  ' if ok else 'FAIL'} {case}: within {worst:.1e} of transformers, over {spread:.2f}", flush=True)
            failed += [] if ok else [case]
    if failed:
        raise SystemExit(", ".join(failed))


if __name__ == "__main__":
    main()
