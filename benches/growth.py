"""How a training step's time and memory grow with prompts, completions and the vocabulary.

    python growth.py --out ../docs/benchmarks [--votive ../target/release/votive] [--processes 3]

Makes random Llamas (hidden 512, 8 layers, 8 heads, 4 key-value heads) with vocabularies of 8, 32 and 152 thousand tokens in a
folder that is thrown away, runs `votive bench text-step --mode lora --batch 2` on random pairs, each size in processes of its
own, and writes the medians as growth.md and growth.svg. Needs numpy, and a tokenizer, which it takes from models/tiny-lm.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 512, 1376, 8, 8, 4
POSITIONS = 4096
PROMPTS = [128, 256, 512, 1024, 2048]
COMPLETIONS = [128, 256, 512, 1024]
VOCABULARIES = [8_192, 32_768, 151_936]
USUAL = {"prompt": 128, "completion": 192, "vocabulary": 8_192}


def shapes(vocabulary: int):
    keys = HIDDEN // HEADS * KV_HEADS
    yield "model.embed_tokens.weight", (vocabulary, HIDDEN)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        yield f"{at}.self_attn.q_proj.weight", (HIDDEN, HIDDEN)
        yield f"{at}.self_attn.k_proj.weight", (keys, HIDDEN)
        yield f"{at}.self_attn.v_proj.weight", (keys, HIDDEN)
        yield f"{at}.self_attn.o_proj.weight", (HIDDEN, HIDDEN)
        yield f"{at}.mlp.gate_proj.weight", (INNER, HIDDEN)
        yield f"{at}.mlp.up_proj.weight", (INNER, HIDDEN)
        yield f"{at}.mlp.down_proj.weight", (HIDDEN, INNER)
        yield f"{at}.input_layernorm.weight", (HIDDEN,)
        yield f"{at}.post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)


def write_model(folder: Path, vocabulary: int):
    """A tied Llama in f32: the header of the safetensors format, then the numbers."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "models/tiny-lm" / name, folder)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocabulary, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "max_position_embeddings": POSITIONS, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in shapes(vocabulary):
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes(vocabulary):
            is_norm = name.endswith("norm.weight")
            numbers = np.ones(shape) if is_norm else 0.02 * random.standard_normal(shape)
            file.write(numbers.astype("<f4").tobytes())


def measure(votive: Path, model: Path, prompt: int, completion: int, processes: int) -> tuple[float, float]:
    """Median CPU seconds of the second step, and median peak in MiB."""
    command = [
        votive, "--json", "--threads", "2", "bench", "text-step", "--model", model, "--mode", "lora", "--batch", "2",
        "--steps", "2", "--prompt-tokens", str(prompt), "--completion-tokens", str(completion),
    ]  # fmt: skip
    seconds, peaks = [], []
    for _ in range(processes):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result = json.loads(done.stdout.strip().splitlines()[-1])
        seconds.append(result["cpu_s"][1])
        peaks.append(result["peak_rss_mib"])
    return statistics.median(seconds), statistics.median(peaks)


def panel(title: str, points: list[tuple[int, float]], left: int, top: int, unit: str) -> str:
    """A line over a logarithmic axis, from zero up."""
    width, height = 220, 130
    low, high = np.log(points[0][0]), np.log(points[-1][0])
    most = 1.1 * max(value for _, value in points)
    x = lambda size: left + width * (np.log(size) - low) / (high - low)
    y = lambda value: top + height * (1 - value / most)
    line = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in points)
    marks = "".join(
        f'<circle cx="{x(size):.1f}" cy="{y(value):.1f}" r="3"/>'
        f'<text x="{x(size):.1f}" y="{y(value) - 7:.1f}" text-anchor="middle">{value:.3g}</text>'
        f'<text x="{x(size):.1f}" y="{top + height + 14}" text-anchor="middle">{size:,}</text>'
        for size, value in points
    )
    return (
        f'<text x="{left}" y="{top - 14}" font-weight="bold">{title}, {unit}</text>'
        f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#999"/>'
        f'<polyline points="{line}" fill="none" stroke="#b45309" stroke-width="2"/>{marks}'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, default=ROOT / "target/release/votive")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=3)
    options = parser.parse_args()
    grown: dict[str, list[tuple[int, float, float]]] = {}
    with tempfile.TemporaryDirectory() as root:
        models = {size: Path(root) / str(size) for size in VOCABULARIES}
        for size, folder in models.items():
            write_model(folder, size)
        for what, sizes in (("prompt", PROMPTS), ("completion", COMPLETIONS), ("vocabulary", VOCABULARIES)):
            for size in sizes:
                now = USUAL | {what: size}
                figures = measure(options.votive, models[now["vocabulary"]], now["prompt"], now["completion"], options.processes)
                grown.setdefault(what, []).append((size, *figures))
                print(what, size, *figures, flush=True)
    rows = [
        f"| {what} | {size:,} | {seconds:.2f} | {peak:.0f} |"
        for what, points in grown.items() for size, seconds, peak in points
    ]  # fmt: skip
    (options.out / "growth.md").write_text("\n".join(["| grows | tokens | CPU s a step | peak MiB |", "| --- | --- | --- | --- |", *rows, ""]))
    drawn = ""
    for column, (what, points) in enumerate(grown.items()):
        for row, (index, unit) in enumerate(((1, "CPU s a step"), (2, "peak MiB"))):
            title = {"prompt": "Prompt tokens", "completion": "Completion tokens", "vocabulary": "Vocabulary"}[what]
            drawn += panel(title, [(point[0], point[index]) for point in points], 40 + 290 * column, 50 + 210 * row, unit)
    (options.out / "growth.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 430" font-family="sans-serif" font-size="11">'
        f'<rect width="900" height="430" fill="#fff"/>{drawn}</svg>\n'
    )


if __name__ == "__main__":
    main()
