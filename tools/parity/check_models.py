"""Random models of every supported architecture, in transformers and in `votive score` and `votive generate`.

No fixture: models of random shapes are made in a temporary folder and both programs run on them. Shapes, windows, rotary
settings, biases, tied heads, the type of the weights and the layout of config.json (transformers 4's or 5's fields) are
drawn from --seed.

  python tools/parity/check_models.py --votive target/release/votive [--seed N] [--only ARCHITECTURE]

Summed log-probs of preference rows may differ by 2e-3, greedy tokens not at all, unless transformers' own best two
tokens are closer than 1e-4.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path

from common import shuffle_parameters, torch, write_json, write_jsonl

import transformers

from text import PREFS, VOCABULARY, WORDS, conversations, expected_of_rows, greedy, train_tokenizer

LOGPS, NEAR_TIE = 2e-3, 1e-4
POSITIONS, NEW_TOKENS = 256, 24


def rope(draw: random.Random, kinds=("default", "linear", "llama3")) -> dict:
    parameters = {"rope_type": draw.choice(kinds), "rope_theta": draw.choice([1e4, 1e5, 5e5, 1e6])}
    if parameters["rope_type"] != "default":
        parameters["factor"] = draw.choice([2.0, 4.0, 8.0])
    if parameters["rope_type"] == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    return parameters


def layer_types(draw: random.Random, layers: int) -> list:
    return [draw.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]


def llama(draw, shape):
    return {"rope_parameters": rope(draw), "attention_bias": draw.random() < 0.3, "mlp_bias": draw.random() < 0.3}


def mistral(draw, shape):
    return {"rope_parameters": rope(draw), "sliding_window": draw.choice([None, 5, 11])}


def qwen2(draw, shape):
    windows = {"use_sliding_window": True, "sliding_window": draw.randint(3, 12), "max_window_layers": 1}
    return {"rope_parameters": rope(draw)} | (windows if draw.random() < 0.5 else {})


def qwen3(draw, shape):
    return qwen2(draw, shape) | {"attention_bias": draw.random() < 0.3}


def gemma(draw, shape):
    return {"rope_parameters": rope(draw), "attention_bias": draw.random() < 0.3}


def gemma2(draw, shape):
    return gemma(draw, shape) | {
        "query_pre_attn_scalar": draw.randint(4, 40),
        "sliding_window": draw.randint(3, 12),
        "attn_logit_softcapping": draw.choice([None, 2.0, 50.0]),
        "final_logit_softcapping": draw.choice([None, 3.0, 30.0]),
        "layer_types": draw.choice([None, layer_types(draw, shape["num_hidden_layers"])]),
    }


def gemma3_text(draw, shape):
    ropes = {"full_attention": rope(draw, ("default", "linear")), "sliding_attention": rope(draw, ("default",))}
    return {
        "rope_parameters": ropes,
        "query_pre_attn_scalar": draw.randint(4, 40),
        "sliding_window": draw.randint(3, 12),
        "final_logit_softcapping": draw.choice([None, 3.0]),
        "layer_types": draw.choice([None, layer_types(draw, shape["num_hidden_layers"])]),
    }


def phi3(draw, shape):
    head = shape["hidden_size"] // shape["num_attention_heads"]
    partial = draw.choice([p for p in (0.5, 0.75, 1.0) if int(head * p) % 2 == 0 and head * p == int(head * p)])
    parameters = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": partial}
    if draw.random() < 0.6:
        pairs = int(head * partial) // 2
        parameters |= {
            "rope_type": "longrope",
            "short_factor": [round(draw.uniform(1, 1.5), 3) for _ in range(pairs)],
            "long_factor": [round(draw.uniform(1, 8), 3) for _ in range(pairs)],
        }
    window = draw.choice([None, 6, 13])
    return {"rope_parameters": parameters, "sliding_window": window, "original_max_position_embeddings": 24}


def olmo2(draw, shape):
    return {"rope_parameters": rope(draw), "attention_bias": draw.random() < 0.3}


def smollm3(draw, shape):
    layers = shape["num_hidden_layers"]
    return llama(draw, shape) | draw.choice([
        {"no_rope_layer_interval": draw.randint(2, 3)},
        {"no_rope_layers": [draw.randint(0, 1) for _ in range(layers)]},
        {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": draw.randint(3, 12)},
    ])  # fmt: skip


# model_type: (what it sets, whether it reads head_dim)
ARCHITECTURES = {
    "llama": (llama, False), "mistral": (mistral, True), "qwen2": (qwen2, False), "qwen3": (qwen3, True),
    "gemma": (gemma, True), "gemma2": (gemma2, True), "gemma3_text": (gemma3_text, True), "olmo2": (olmo2, False),
    "phi3": (phi3, False), "smollm3": (smollm3, False),
}  # fmt: skip


def random_shape(draw: random.Random, reads_head_dim: bool) -> dict:
    group, key_value_heads = draw.randint(1, 4), draw.randint(1, 3)
    heads = group * key_value_heads
    width = draw.choice([4, 6, 8, 12])
    shape = dict(
        vocab_size=VOCABULARY + draw.choice([0, 8]), hidden_size=heads * width,
        intermediate_size=draw.randint(10, 40) * 2, num_hidden_layers=draw.randint(1, 4),
        num_attention_heads=heads, num_key_value_heads=key_value_heads, max_position_embeddings=POSITIONS,
        tie_word_embeddings=draw.random() < 0.5,
    )  # fmt: skip
    if reads_head_dim:
        shape["head_dim"] = draw.choice([4, 6, 8, 10])
    return shape


def use_older_fields(folder: Path) -> None:
    """Rewrites config.json as transformers 4 wrote it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    if "full_attention" in parameters:
        config["rope_theta"] = parameters["full_attention"].pop("rope_theta")
        config["rope_local_base_freq"] = parameters["sliding_attention"].pop("rope_theta")
        parameters = parameters["full_attention"]
    else:
        config["rope_theta"] = parameters.pop("rope_theta")
    if "partial_rotary_factor" in parameters:
        config["partial_rotary_factor"] = parameters.pop("partial_rotary_factor")
    if parameters["rope_type"] == "longrope":
        parameters = {"type": "longrope", "short_factor": parameters["short_factor"], "long_factor": parameters["long_factor"]}
    config["rope_scaling"] = None if parameters.get("rope_type") == "default" else parameters
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.51.0"
    write_json(path, config)


def make_model(folder: Path, model_type: str, draw: random.Random, seed: int):
    settings, reads_head_dim = ARCHITECTURES[model_type]
    shape = random_shape(draw, reads_head_dim)
    tokenizer = train_tokenizer(draw.random() < 0.5)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = transformers.AutoConfig.for_model(model_type, **shape, **ids, **settings(draw, shape))
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    shuffle_parameters(model, seed, spread=0.2)
    model.to(draw.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16])).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if draw.random() < 0.5:
        use_older_fields(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval(), tokenizer


def votive(program: Path, *arguments) -> list:
    result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"votive {' '.join(map(str, arguments))}\n{result.stderr}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def check_scores(program: Path, folder: Path, model, tokenizer, rows: list) -> float:
    """The largest difference of a summed log-prob."""
    write_jsonl(folder / "rows.jsonl", rows)
    out = folder / "scores.jsonl"
    votive(program, "score", "--model", folder, "--data", folder / "rows.jsonl", "--out", out, "--json")
    scores = [json.loads(line) for line in out.read_text().splitlines()]
    expected = expected_of_rows(model, tokenizer, rows)
    found = [score["chosen_logps"] for score in scores] + [score["rejected_logps"] for score in scores]
    tokens = [score["chosen_tokens"] for score in scores] + [score["rejected_tokens"] for score in scores]
    assert tokens == expected["tokens"].tolist(), f"tokens {tokens}, transformers and TRL {expected['tokens'].tolist()}"
    return max(abs(a - b) for a, b in zip(found, expected["logps"].tolist()))


def check_greedy(program: Path, folder: Path, model, tokenizer, prompts: list) -> int:
    """The number of prompts whose greedy tokens differ."""
    arguments = [part for prompt in prompts for part in ("--prompt", prompt)]
    rows = votive(
        program, "generate", "--model", folder, *arguments, "--max-new-tokens", NEW_TOKENS, "--temperature", 0, "--json"
    )
    differing = 0
    for prompt, row in zip(prompts, rows):
        expected = greedy(model, tokenizer, prompt, NEW_TOKENS)
        if row["token_ids"] != expected["token_ids"] and expected["smallest_gap"] > NEAR_TIE:
            print(f"  {prompt!r}: {row['token_ids']}\n  transformers: {expected['token_ids']}")
            differing += 1
    return differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, default=Path("target/release/votive"), help="the program")
    parser.add_argument("--seed", type=int, default=0, help="what shapes and weights are drawn from")
    parser.add_argument("--only", choices=sorted(ARCHITECTURES), help="one architecture")
    args = parser.parse_args()
    failed = []
    for index, model_type in enumerate(ARCHITECTURES):
        if args.only not in (None, model_type):
            continue
        draw = random.Random(1000 * args.seed + index)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            model, tokenizer = make_model(folder, model_type, draw, args.seed)
            prompts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))).capitalize() for _ in range(4)]
            worst = max(
                check_scores(args.votive, folder, model, tokenizer, rows) for rows in (PREFS, conversations())
            )
            differing = check_greedy(args.votive, folder, model, tokenizer, prompts)
            config = json.loads((folder / "config.json").read_text())
        ok = worst <= LOGPS and differing == 0
        older = "rope_theta" in config
        print(
            f"{'ok  ' if ok else 'FAIL'} {model_type}: summed log-probs within {worst:.1e}, {differing} of {len(prompts)} "
            f"greedy continuations differ ({'older' if older else 'newer'} fields, {config['num_hidden_layers']} layers, "
            f"{config['num_attention_heads']}/{config['num_key_value_heads']} heads, {config.get('dtype', config.get('torch_dtype'))})",
            flush=True,
        )  # fmt: skip
        failed += [] if ok else [model_type]
    if failed:
        raise SystemExit(f"seed {args.seed}: {', '.join(failed)}")


if __name__ == "__main__":
    main()
