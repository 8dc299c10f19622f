"""Loads a model folder in transformers or diffusers and compares it with what `votive` printed.

    votive generate --model models/tiny-lm --prompt "…" --max-new-tokens 24 --temperature 0 --json > generated.json
    votive score --model models/tiny-lm --data pairs.jsonl --out scores.jsonl
    python tools/parity/check_embedded.py text --prompt "…" --generated generated.json \\
        --data pairs.jsonl --scores scores.jsonl

    votive sample --model models/tiny-sd --prompt "…" --sampler ddim --steps 20 --cfg 5 --seed 1 --out out \\
        --save-latents latents.safetensors
    python tools/parity/check_embedded.py image --prompt "…" --sampler ddim --steps 20 --cfg 5 \\
        --latents latents.safetensors

Without --generated, --scores or --latents it only loads, runs and prints. Everything is computed in
float32. The last line of stdout is one JSON object; the exit code is 1 where a comparison failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from common import ROOT, read_tensors, torch


def read_rows(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


# --- text ---------------------------------------------------------------------------------------


def load_text(folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model, AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def score_rows(model, tokenizer, rows: list) -> list:
    """What `votive score` writes, row by row, by TRL's tokenisation."""
    from text import per_token_logps, trl_batch

    scored = []
    for row in rows:
        batch = trl_batch([row], tokenizer, max_length=model.config.max_position_embeddings)
        chosen, rejected = per_token_logps(model, batch).sum(1).tolist()
        chosen_tokens, rejected_tokens = batch["completion_mask"].sum(1).tolist()
        scored.append({
            "chosen_logps": chosen, "rejected_logps": rejected,
            "chosen_tokens": chosen_tokens, "rejected_tokens": rejected_tokens,
        })  # fmt: skip
    return scored


def compare_scores(ours: list, theirs: list, tolerance: float) -> dict:
    """Summed log-probs may differ by `tolerance` a token; token counts must be equal."""
    worst, same_counts = 0.0, len(ours) == len(theirs)
    for expected, found in zip(ours, theirs):
        for side in ("chosen", "rejected"):
            tokens = expected[f"{side}_tokens"]
            same_counts &= tokens == found[f"{side}_tokens"]
            worst = max(worst, abs(expected[f"{side}_logps"] - found[f"{side}_logps"]) / tokens)
    ok = same_counts and worst <= tolerance
    return {"rows": len(ours), "same_token_counts": same_counts, "logps_per_token": worst, "ok": ok}


def generated_ids(path: Path) -> list:
    """`token_ids` of each prompt: one JSON object a line, or one array, or an object that holds it."""
    text = path.read_text()
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = read_rows(path)
    if isinstance(value, dict) and "token_ids" not in value:
        value = next(item for item in value.values() if isinstance(item, list))
    return [row["token_ids"] for row in (value if isinstance(value, list) else [value])]


def check_text(args) -> tuple[dict, bool]:
    from text import greedy

    model, tokenizer = load_text(args.model)
    generated = [greedy(model, tokenizer, prompt, args.max_new_tokens) for prompt in args.prompt]
    result, ok = {"generated": generated}, True
    if args.generated:
        # The end token itself may be listed or not.
        end = {tokenizer.eos_token_id}
        strip = lambda ids: [token for token in ids if token not in end]  # noqa: E731
        theirs = generated_ids(args.generated)
        same = [strip(row["token_ids"]) == strip(ids) for row, ids in zip(generated, theirs)]
        result["same_token_ids"] = same
        ok &= len(theirs) == len(generated) and all(same)
    if args.data:
        result["scores"] = score_rows(model, tokenizer, read_rows(args.data))
    if args.scores:
        result["compared"] = compare_scores(result["scores"], read_rows(args.scores), tolerance=1e-4)
        ok &= result["compared"]["ok"]
    return result, ok


# --- image --------------------------------------------------------------------------------------


@torch.no_grad()
def check_image(args) -> tuple[dict, bool]:
    from diffusers import StableDiffusionPipeline

    from diffusion import SAMPLERS

    pipeline = StableDiffusionPipeline.from_pretrained(args.model, torch_dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = SAMPLERS[args.sampler].from_config(pipeline.scheduler.config)
    given = read_tensors(args.latents) if args.latents else {}
    size = pipeline.unet.config.sample_size
    shape = (len(args.prompt), pipeline.unet.config.in_channels, size, size)
    start = given.get("latents", torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    options = dict(num_inference_steps=args.steps, guidance_scale=args.cfg, latents=start.float())
    final = pipeline(args.prompt, output_type="latent", **options).images
    images = pipeline.vae.decode(final / pipeline.vae.config.scaling_factor).sample
    axes = (1, 2, 3)
    result, ok = {"final_latents_mean": final.mean(axes).tolist(), "final_latents_std": final.std(axes).tolist()}, True
    result["image_mean"] = images.mean(axes).tolist()
    if "final_latents" in given:
        difference = ((given["final_latents"] - final).abs().max() / final.abs().max()).item()
        result["final_latents_relative_difference"] = difference
        ok = difference <= args.tolerance
    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(pipeline.image_processor.postprocess(images)):
            image.save(args.save / f"{index}.png")
    return result, ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    text = kinds.add_parser("text", help="a language model")
    text.add_argument("--model", type=Path, default=ROOT / "models" / "tiny-lm")
    text.add_argument("--prompt", action="append", default=[])
    text.add_argument("--max-new-tokens", type=int, default=24)
    text.add_argument("--generated", type=Path, help="output of `votive generate --json` on the same prompts")
    text.add_argument("--data", type=Path, help="preference rows to score")
    text.add_argument("--scores", type=Path, help="output of `votive score` on the same rows")
    image = kinds.add_parser("image", help="a Stable Diffusion pipeline")
    image.add_argument("--model", type=Path, default=ROOT / "models" / "tiny-sd")
    image.add_argument("--prompt", action="append", required=True)
    image.add_argument("--sampler", choices=["ddim", "euler", "dpmpp"], default="ddim")
    image.add_argument("--steps", type=int, default=20)
    image.add_argument("--cfg", type=float, default=5.0)
    image.add_argument("--latents", type=Path, help="file of `votive sample --save-latents` on the same prompts")
    image.add_argument("--tolerance", type=float, default=1e-3, help="of the final latents, relative to the largest")
    image.add_argument("--save", type=Path, help="folder for the images")
    args = parser.parse_args()
    if args.kind == "text" and args.scores and not args.data:
        parser.error("--scores needs --data")
    result, ok = check_text(args) if args.kind == "text" else check_image(args)
    print(json.dumps({"kind": args.kind, "ok": ok} | result))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
