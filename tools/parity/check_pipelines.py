"""Random Stable Diffusion pipelines of every kind, in diffusers and in `votive sample` and `votive inspect`.

No fixture: pipelines of random shapes are made in a temporary folder and both programs run on them. Levels, channels,
heads, transformer blocks, linear projections, the width of the prompt, prediction type, schedule, size of the image,
sampler, steps and guidance are drawn from --seed. The kinds take turns: Stable Diffusion 1, 2 with linear projections,
v-prediction, v-prediction with zero terminal SNR, and XL.

  python tools/parity/check_pipelines.py --votive target/release/votive [--seed N] [--count N] [--only KIND]

Final latents of DDIM, Euler and DPM-Solver++ may differ by 2e-3 of the largest, or absolutely where that is below 1. Of a
Diffusion-DPO step against another model as reference, errors may differ by 1e-4, the loss by 1e-4 and the gradient's
norm by 1e-3, errors and norm relative; prompt embeddings and pooled prompts by 1e-4.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import read_tensors, shuffle_parameters, torch, write_jsonl, write_tensors

import diffusers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from diffusion import PROMPTS, SAMPLERS, train_clip_tokenizer

diffusers.logging.disable_progress_bar()

KINDS = ("sd1", "sd2", "v", "zero_snr", "sdxl")
LATENTS, EMBEDS, ERRORS, LOSS, NORM = 2e-3, 1e-4, 1e-4, 1e-4, 1e-3
BETA, PAIRS = 500.0, 3


def blocks(draw: random.Random, levels: int) -> tuple[list, list]:
    """Which levels have attention; at least one."""
    attention = [draw.random() < 0.6 for _ in range(levels)]
    attention[draw.randrange(levels)] = True
    down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention]
    up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)]
    return down, up


def transformer_layers(draw: random.Random, layers: list) -> dict:
    """One number for all, one a level, or one for each attention with a way up of its own."""
    form = draw.choice(["one", "levels", "nested"])
    if form == "one":
        return {"transformer_layers_per_block": draw.randint(1, 2)}
    if form == "levels":
        return {"transformer_layers_per_block": [draw.randint(0, 2) for _ in layers]}

    def each(count):
        return draw.choice([draw.randint(0, 2), [draw.randint(0, 2) for _ in range(count)]])

    return {
        "transformer_layers_per_block": [each(count) for count in layers],
        "reverse_transformer_layers_per_block": [each(count + 1) for count in reversed(layers)],
    }


def unet_shape(draw: random.Random, kind: str, width: int, projection: int) -> dict:
    levels, groups = draw.randint(2, 3), draw.choice([2, 4])
    heads = [draw.choice([1, 2, 3, 4]) for _ in range(levels)]
    channels = [groups * draw.randint(2, 5) for _ in range(levels)]
    wanted = draw.choice([1, 2, 3, 4])
    heads = [max(h for h in range(1, head + 1) if count % h == 0) for head, count in zip(heads, channels)]
    down, up = blocks(draw, levels)
    layers = [draw.randint(1, 2) for _ in range(levels)]
    shape = dict(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=channels, norm_num_groups=groups,
        down_block_types=down, up_block_types=up, cross_attention_dim=width, layers_per_block=layers,
        attention_head_dim=heads, use_linear_projection=kind != "sd1" and draw.random() < 0.8,
        norm_eps=draw.choice([1e-5, 1e-6]), flip_sin_to_cos=draw.random() < 0.8, freq_shift=draw.choice([0, 0, 1]),
    )  # fmt: skip
    if kind == "sd1":
        # One number of heads for all levels.
        common = math.gcd(*channels)
        shape |= {"layers_per_block": 2, "attention_head_dim": max(h for h in range(1, wanted + 1) if common % h == 0)}
    else:
        shape |= transformer_layers(draw, layers)
    if kind == "sdxl":
        each = draw.choice([4, 6, 8])
        shape |= {
            "addition_embed_type": "text_time", "addition_time_embed_dim": each,
            "projection_class_embeddings_input_dim": 6 * each + projection,
        }  # fmt: skip
    return shape


def text_encoder(draw: random.Random, kind, tokenizer, width: int, **other):
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=draw.randint(10, 40),
            num_hidden_layers=draw.randint(1, 3), num_attention_heads=draw.choice([1, 2, 4]),
            max_position_embeddings=77, hidden_act=draw.choice(["quick_gelu", "gelu"]),
            bos_token_id=tokenizer.bos_token_id, eos_token_id=draw.choice([2, tokenizer.eos_token_id]),
            pad_token_id=tokenizer.pad_token_id, **other,
        )
    )  # fmt: skip


def scheduler_config(draw: random.Random, kind: str) -> dict:
    velocity = kind in ("v", "zero_snr") or (kind == "sdxl" and draw.random() < 0.3)
    return dict(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        prediction_type="v_prediction" if velocity else "epsilon", rescale_betas_zero_snr=kind == "zero_snr",
        set_alpha_to_one=draw.random() < 0.5, steps_offset=draw.choice([0, 1]) if kind == "sdxl" else 1,
        timestep_spacing="trailing" if kind == "zero_snr" else draw.choice(["leading", "trailing"]),
    )  # fmt: skip


def make_pipeline(folder: Path, kind: str, draw: random.Random, seed: int):
    torch.manual_seed(seed)
    widths, projection = [4 * draw.randint(2, 6) for _ in range(1 + (kind == "sdxl"))], draw.randint(6, 30)
    pads = ["<|endoftext|>" if kind in ("sd1", "sdxl") else "!", "!"]
    tokenizers = [
        train_clip_tokenizer(folder / name, pad)
        for name, pad, _ in zip(("tokenizer", "tokenizer_2"), pads, widths)
    ]
    parts = {
        "tokenizer": tokenizers[0],
        "text_encoder": text_encoder(draw, CLIPTextModel, tokenizers[0], widths[0]),
        "unet": UNet2DConditionModel(**unet_shape(draw, kind, sum(widths), projection)),
        "scheduler": DDIMScheduler(**scheduler_config(draw, kind)),
        "vae": AutoencoderKL(
            block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, sample_size=16, latent_channels=4,
            scaling_factor=0.13025 if kind == "sdxl" else 0.18215,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
    }  # fmt: skip
    if kind == "sdxl":
        parts |= {
            "tokenizer_2": tokenizers[1],
            "text_encoder_2": text_encoder(
                draw, CLIPTextModelWithProjection, tokenizers[1], widths[1], projection_dim=projection
            ),
        }
    for offset, name in enumerate(("unet", "vae", "text_encoder", "text_encoder_2")):
        if name in parts:
            shuffle_parameters(parts[name], seed + offset, 0.05)
    if kind == "sdxl":
        pipeline = StableDiffusionXLPipeline(
            **parts, force_zeros_for_empty_prompt=draw.random() < 0.5, add_watermarker=False
        )
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(folder)
    pipeline = type(pipeline).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def votive(program: Path, *arguments) -> None:
    result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"votive {' '.join(map(str, arguments))}\n{result.stderr}")


def check_samples(program: Path, folder: Path, pipeline, draw: random.Random) -> float:
    """The largest difference of a final latent, of the largest one or of 1."""
    # diffusers draws multiples of 8 pixels.
    unit = max(4, 2 ** (len(pipeline.unet.config.block_out_channels) - 1))
    height, width = (unit * draw.randint(1, 3) for _ in range(2))
    start = torch.randn(len(PROMPTS), 4, height, width)
    write_tensors(folder / "start.safetensors", {"latents": start})
    steps, scale = draw.randint(4, 14), draw.choice([1.0, 2.0, 5.0, 7.5])
    negative = draw.choice([None, "", "white"])
    worst = 0.0
    for sampler in ("ddim", "euler", "dpmpp"):
        pipeline.scheduler = SAMPLERS[sampler].from_config(pipeline.scheduler.config)
        expected = pipeline(
            PROMPTS, negative_prompt=None if negative is None else [negative] * len(PROMPTS),
            num_inference_steps=steps, guidance_scale=scale, latents=start.clone(), output_type="latent",
            height=2 * height, width=2 * width,
        ).images  # fmt: skip
        arguments = [part for prompt in PROMPTS for part in ("--prompt", prompt)]
        arguments += [] if negative is None else ["--negative-prompt", negative]
        votive(
            program, "sample", "--model", folder, "--sampler", sampler, "--steps", steps, "--cfg", scale, *arguments,
            "--width", 2 * width, "--height", 2 * height, "--out", folder / "images",
            "--latents", folder / "start.safetensors", "--save-latents", folder / "end.safetensors",
        )  # fmt: skip
        found = read_tensors(folder / "end.safetensors")["final_latents"]
        worst = max(worst, ((found - expected).abs().max() / expected.abs().max().clamp(min=1.0)).item())
    return worst


def write_recipe(folder: Path, draw: random.Random, reference: Path, step: int) -> tuple[Path, list]:
    captions = [" ".join(draw.choices(PROMPTS[0].split() + PROMPTS[1].split(), k=draw.randint(1, 9))) for _ in range(7)]
    rows = []
    for row, caption in enumerate(captions):
        names = [f"{side}{row}.png" for side in ("chosen", "rejected")]
        for name in names:
            size = (draw.randint(16, 40), draw.randint(16, 40))
            pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / name)
        rows.append({"prompt": caption, "chosen": names[0], "rejected": names[1]})
    write_jsonl(folder / "pairs.jsonl", rows)
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'model.path = "{folder}"\ndata = {{ path = "{folder}/pairs.jsonl", order = "sequential" }}\n'
        f"objective.dpo.beta = {BETA}\n"
        f'reference = {{ kind = "model", path = "{reference}" }}\n'
        f"train = {{ steps = {step + 1}, batch_size = {PAIRS}, micro_batch_size = 1, seed = {step} }}\n"
    )
    return recipe, captions


def expected_step(pipeline, reference, seen: dict) -> dict:
    """Errors, loss and norm of the gradient on the batch that votive drew."""
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    latents, noise, timesteps = seen["latents"], seen["noise"], seen["timesteps"].long()
    noisy = scheduler.add_noise(latents, noise, timesteps)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
    added = None
    if "time_ids" in seen:
        added = {"text_embeds": seen["pooled_prompt_embeds"], "time_ids": seen["time_ids"]}

    def errors(unet):
        prediction = unet(noisy, timesteps, seen["prompt_embeds"], added_cond_kwargs=added).sample
        return ((prediction - target) ** 2).mean((1, 2, 3))

    unet = pipeline.unet.requires_grad_(True)
    with torch.enable_grad():
        policy_error, reference_error = errors(unet), errors(reference).detach()
        chosen, rejected = (policy_error - reference_error).chunk(2)
        loss = -torch.nn.functional.logsigmoid(-0.5 * BETA * (chosen - rejected)).mean()
        loss.backward()
    grads = [parameter.grad for parameter in unet.parameters() if parameter.grad is not None]
    unet.requires_grad_(False)
    return {
        "policy_error": policy_error, "reference_error": reference_error, "loss": loss,
        "grad_norm": torch.nn.utils.get_total_norm(grads),
    }  # fmt: skip


def expected_prompts(pipeline, captions: list) -> dict:
    embeds = pipeline.encode_prompt(
        captions, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return {"prompt_embeds": embeds[0]} | ({"pooled_prompt_embeds": embeds[2]} if len(embeds) == 4 else {})


def check_step(program: Path, folder: Path, pipeline, draw: random.Random, seed: int) -> dict:
    """How far a Diffusion-DPO step is from torch's, by what is compared."""
    reference_folder = folder.parent / "reference"
    shutil.copytree(folder, reference_folder)
    reference = UNet2DConditionModel.from_pretrained(reference_folder, subfolder="unet")
    shuffle_parameters(reference, seed + 9, 3e-3)
    reference.save_pretrained(reference_folder / "unet")
    step = draw.randint(0, 1)
    recipe, captions = write_recipe(folder, draw, reference_folder, step)
    dump = folder / "dump.safetensors"
    votive(program, "inspect", recipe, "--step", step, "--dump", dump)
    seen = read_tensors(dump)
    expected = expected_step(pipeline, reference, seen)
    own = captions[PAIRS * step : PAIRS * (step + 1)]
    distances = {}
    for name, values in expected_prompts(pipeline, own + own).items():
        distances[name] = ((seen[name] - values).abs().max() / values.abs().max()).item()
    for name in ("policy_error", "reference_error"):
        distances[name] = (seen[name] / expected[name] - 1).abs().max().item()
    distances["loss"] = (seen["loss"] - expected["loss"]).abs().item()
    distances["grad_norm"] = (seen["grad_norm"] / expected["grad_norm"] - 1).abs().item()
    return distances


LIMITS = {
    "prompt_embeds": EMBEDS, "pooled_prompt_embeds": EMBEDS, "policy_error": ERRORS, "reference_error": ERRORS,
    "loss": LOSS, "grad_norm": NORM, "latents": LATENTS,
}  # fmt: skip


def in_words(pipeline) -> str:
    config = pipeline.unet.config
    layers = [config.transformer_layers_per_block, config.reverse_transformer_layers_per_block]
    return (
        f"channels {list(config.block_out_channels)}, heads {config.attention_head_dim}, width {config.cross_attention_dim}, "
        f"{'linear' if config.use_linear_projection else 'convolution'}, blocks {layers[0]}{' / ' + str(layers[1]) if layers[1] else ''}"
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, default=Path("target/release/votive"), help="the program")
    parser.add_argument("--seed", type=int, default=0, help="what shapes and weights are drawn from")
    parser.add_argument("--count", type=int, default=10, help="pipelines")
    parser.add_argument("--only", choices=KINDS, help="one kind")
    args = parser.parse_args()
    failed, worst = [], dict.fromkeys(LIMITS, 0.0)
    kinds = [args.only] if args.only else KINDS
    for index in range(args.count):
        kind, seed = kinds[index % len(kinds)], 1000 * args.seed + index
        draw = random.Random(seed)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "pipeline"
            pipeline = make_pipeline(folder, kind, draw, seed)
            distances = {"latents": check_samples(args.votive, folder, pipeline, draw)}
            distances |= check_step(args.votive, folder, pipeline, draw, seed)
        ok = all(distance <= LIMITS[name] for name, distance in distances.items())
        worst = {name: max(value, distances.get(name, 0.0)) for name, value in worst.items()}
        numbers = ", ".join(f"{name} {distance:.1e}" for name, distance in distances.items())
        print(f"{'ok  ' if ok else 'FAIL'} {seed} {kind}: {numbers} ({in_words(pipeline)})", flush=True)
        failed += [] if ok else [f"{seed} {kind}"]
    print("largest: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()))
    if failed:
        raise SystemExit(f"seed {args.seed}: {', '.join(failed)}")


if __name__ == "__main__":
    main()
