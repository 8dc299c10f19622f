"""Loads what `votive merge` and `votive export` write in transformers, PEFT and llama.cpp, and compares it with `votive generate`.

    python tools/parity/check_exports.py --votive target/release/votive

Makes no fixture. For every model of tests/fixtures/text an adapter with random weights is made by PEFT, and then
  hub    the merged folder, loaded by transformers, against the adapted model in PEFT: largest logit difference
  peft   the exported adapter, loaded by PEFT: the same
  gguf   the file in F32, F16 and Q8_0, loaded by transformers (through the package `gguf`), and by llama.cpp if
         `llama-cpp-python` is installed: tokens of prompts, and greedy tokens against those of `votive generate`
Greedy tokens of Q8_0 may differ from the model's own, so they are only counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import FIXTURES, ROOT, torch

from gguf import GGUFReader
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

MODELS = ["llama", "llama_tied", "mistral", "qwen2", "qwen3"]
PROMPTS = ["The cat sat on", "Name a colour:", "Q: is it warm?\nA:"]
NEW_TOKENS = 16


def votive(program: str, *args: str) -> list[dict]:
    done = subprocess.run([program, *args, "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return [json.loads(line) for line in done.stdout.splitlines()]


def load(folder: Path, **more):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **more).eval()


@torch.no_grad()
def logits(model, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits


def random_adapter(base: Path, folder: Path) -> None:
    torch.manual_seed(0)
    targets = ["q_proj", "v_proj", "o_proj", "down_proj"]
    config = LoraConfig(r=4, lora_alpha=16, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(load(base), config).save_pretrained(folder)


def greedy(program: str, model: Path) -> list[list[int]]:
    prompts = [part for prompt in PROMPTS for part in ("--prompt", prompt)]
    found = votive(program, "generate", "--model", str(model), *prompts, "--temperature", "0", "--max-new-tokens", str(NEW_TOKENS))
    return [row["token_ids"] for row in found]


@torch.no_grad()
def greedy_of_transformers(model, tokenizer) -> list[list[int]]:
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)["input_ids"]
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS)
        found.append(made[0, ids.shape[1]:].tolist())
    return found


def greedy_of_llama_cpp(file: Path, prompts: list[list[int]], stop: int):
    from llama_cpp import Llama

    model = Llama(str(file), n_ctx=256, n_threads=1, verbose=False)
    # The prompt's tokens, as llama.cpp's own tokenizer makes them.
    own = [model.tokenize(prompt.encode(), add_bos=True, special=True) for prompt in PROMPTS]
    made = []
    for ids in prompts:
        model.reset()
        tokens = []
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            tokens.append(token)
            if token == stop or len(tokens) == NEW_TOKENS:
                break
        made.append(tokens)
    return own, made


def rope_factors_fit(file: Path, config) -> bool:
    """Whether frequencies without scaling, divided by the file's factors, are those of transformers."""
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(file).tensors}
    if config.rope_parameters["rope_type"] == "default":
        return "rope_freqs.weight" not in tensors
    scaled, _ = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](config, "cpu")
    theta, width = config.rope_parameters["rope_theta"], 2 * len(scaled)
    plain = theta ** -(torch.arange(0, width, 2) / width)
    return torch.allclose(plain / torch.from_numpy(tensors["rope_freqs.weight"].copy()), scaled, rtol=1e-6)


def check_gguf(program: str, name: str, model: Path, work: Path) -> bool:
    tokenizer = AutoTokenizer.from_pretrained(model)
    expected, ok = greedy(program, model), True
    for dtype in ["f32", "f16", "q8_0"]:
        file = work / f"{name}.{dtype}.gguf"
        votive(program, "export", str(model), "--to", "gguf", "--dtype", dtype, "--out", str(file))
        # transformers does not read a head's width and Llama 3's rotary factors from the file: its own configuration is given.
        config = AutoConfig.from_pretrained(model)
        results = {"transformers": greedy_of_transformers(load(work, gguf_file=file.name, config=config), tokenizer)}
        ok &= rope_factors_fit(file, config)
        if importlib.util.find_spec("llama_cpp"):
            prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
            own, results["llama.cpp"] = greedy_of_llama_cpp(file, prompts, tokenizer.eos_token_id)
            ok &= own == prompts
            print(f"{name} gguf {dtype}: llama.cpp's own tokens of the prompts: {'same' if own == prompts else 'DIFFERENT'}")
        for reader, found in results.items():
            same = sum(a == b for a, b in zip(expected, found))
            print(f"{name} gguf {dtype}: {reader}: greedy tokens of {same} of {len(PROMPTS)} prompts the same")
            ok &= same == len(PROMPTS) or dtype == "q8_0"
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", default=str(ROOT / "target/release/votive"))
    program, ok = parser.parse_args().votive, True
    for name in MODELS:
        base = FIXTURES / "text" / name
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            random_adapter(base, work / "adapter")
            ids = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(1))
            adapted = logits(PeftModel.from_pretrained(load(base), work / "adapter"), ids)
            given = ["export", str(work / "adapter"), "--model", str(base)]
            votive(program, *given, "--to", "hub", "--out", str(work / "hub"))
            votive(program, *given, "--to", "peft", "--out", str(work / "peft"))
            hub = (logits(load(work / "hub"), ids) - adapted).abs().max().item()
            peft = (logits(PeftModel.from_pretrained(load(base), work / "peft"), ids) - adapted).abs().max().item()
            change = (logits(load(base), ids) - adapted).abs().max().item()
            print(f"{name}: logits off by {hub:.1e} (hub), {peft:.1e} (peft); the adapter moves them by {change:.2f}")
            ok &= hub < 1e-4 and peft < 1e-5 and change > 0.1
            try:
                ok &= check_gguf(program, name, base, work)
            except RuntimeError as error:
                print(f"{name} gguf: refused: {error}")
                ok &= name == "mistral"
    sys.exit(0 if ok else "something differs")


if __name__ == "__main__":
    main()
