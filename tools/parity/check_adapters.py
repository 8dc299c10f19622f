"""Adapters that `votive train` saves, in PEFT.

For every kind of adapter a few steps are trained on a model of the fixtures; then PEFT loads the folder, and its summed
log-probs are compared with those of `votive score --adapter`.

  python tools/parity/check_adapters.py --votive target/release/votive
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from common import FIXTURES, torch, write_jsonl

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from check_models import LOGPS, votive
from text import PREFS, expected_of_rows

# name: (model in text/, keys of [adapter.lora])
CASES = {
    "plain": ("llama", 'targets = ["q_proj", "v_proj"]'),
    "rslora": ("mistral", 'targets = "all-linear"\nuse_rslora = true\nrank_pattern = { "layers.1.mlp.up_proj" = 2 }'),
    "dora": ("qwen2", 'targets = "all-linear"\nuse_dora = true\nalpha_pattern = { k_proj = 1.5 }'),
    "saved": ("gemma2", 'targets = ["o_proj"]\nmodules_to_save = ["model.norm", "post_feedforward_layernorm"]'),
    "head": ("llama", 'targets = ["down_proj"]\nmodules_to_save = ["lm_head", "embed_tokens"]'),
    "rule": ("phi3", "targets = '.*\\.1\\.(mlp|self_attn)\\..*_proj'\nexclude = ['qkv_proj']"),
    "layers": ("olmo2", 'targets = ["q_proj", "up_proj"]\nlayers = [0, 2]'),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, default=Path("target/release/votive"), help="the program")
    program = parser.parse_args().votive
    failed = []
    for case, (name, keys) in CASES.items():
        model = FIXTURES / "text" / name
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            rows = folder / "rows.jsonl"
            write_jsonl(rows, PREFS)
            recipe = folder / "recipe.toml"
            recipe.write_text(
                f"model.path = {json.dumps(str(model))}\ndata.path = {json.dumps(str(rows))}\n"
                f"[adapter.lora]\nrank = 4\nalpha = 6.0\n{keys}\n[objective.dpo]\n[optimizer]\nlr = 5e-3\n"
                "[train]\nsteps = 6\nbatch_size = 4\n"
            )
            votive(program, "train", recipe, "--out", folder / "run", "--json")
            adapter, out = folder / "run" / "final", folder / "scores.jsonl"
            votive(program, "score", "--model", model, "--adapter", adapter, "--data", rows, "--out", out, "--json")
            scores = [json.loads(line) for line in out.read_text().splitlines()]
            base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
            tokenizer = AutoTokenizer.from_pretrained(model)
            before = expected_of_rows(base.eval(), tokenizer, PREFS)["logps"]
            adapted = PeftModel.from_pretrained(base, adapter).eval()
            expected = expected_of_rows(adapted, tokenizer, PREFS)["logps"]
        found = [score["chosen_logps"] for score in scores] + [score["rejected_logps"] for score in scores]
        worst = max(abs(a - b) for a, b in zip(found, expected.tolist()))
        moved = (before - expected).abs().max().item()
        ok = worst <= LOGPS and moved > 10 * LOGPS
        print(f"{'ok  ' if ok else 'FAIL'} {case} on {name}: within {worst:.1e} of PEFT; training moved {moved:.2f}", flush=True)
        failed += [] if ok else [case]
    if failed:
        raise SystemExit(", ".join(failed))


if __name__ == "__main__":
    main()
