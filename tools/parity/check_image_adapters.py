"""Image adapters from Votive to diffusers and back, on random pipelines.

For each pipeline shape a few steps are trained with `votive train`, linear maps and convolutions, in the formats of diffusers and
kohya. diffusers loads what was saved, and what `votive export` makes of it, with `load_lora_weights`; its final latents are compared
with those of `votive sample --adapter`. Then diffusers and PEFT make adapters of U-Net and text encoder and save them in their
spellings, and `votive sample` loads them.

  python tools/parity/check_image_adapters.py --votive target/release/votive
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from common import read_tensors, torch

import diffusers
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

import diffusion
from check_models import votive
from lora_image import kohya, shuffle_adapter

diffusers.logging.disable_progress_bar()
LATENTS = 1e-5  # relative to the largest latent; single networks and steps agree to rounding
STEPS, CFG, PROMPT = 6, 4.0, "a red circle above a blue square"

# Shapes that no fixture has: name, U-Net, targets of [adapter.lora].
SHAPES = {
    "sd1, one level of attention": (
        "sd1",
        dict(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=diffusion.CROSS_DIM,
            attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        ["to_k", "to_out.0", "conv1", "conv_in", "conv", "proj_in", "time_emb_proj"],
    ),
    "sd1, four levels": (
        "sd1",
        dict(
            sample_size=16, block_out_channels=(8, 8, 16, 16), layers_per_block=2, norm_num_groups=4,
            cross_attention_dim=diffusion.CROSS_DIM, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        ),
        ["to_q", "to_v", "ff.net.2", "conv2", "conv_shortcut", "proj_out", "linear_1"],
    ),
    "sd2, linear projections, v": (
        "sd2",
        dict(
            sample_size=8, block_out_channels=(16, 16, 32), layers_per_block=1, norm_num_groups=8,
            cross_attention_dim=diffusion.CROSS_DIM, attention_head_dim=[2, 4, 4], use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        ["to_q", "proj_in", "conv1", "conv_out"],
    ),
}  # fmt: skip


def build(folder: Path, shape: str, unet: dict, seed: int):
    """A random pipeline; `diffusion` builds it from its table."""
    size = unet["sample_size"] * 2 ** (len(diffusion.PIPELINES[shape]["vae"]["block_out_channels"]) - 1)
    vae = diffusion.PIPELINES[shape]["vae"] | {"sample_size": size}
    diffusion.PIPELINES["random"] = diffusion.PIPELINES[shape] | {"unet": unet, "vae": vae}
    diffusion.build_pipeline(folder, "random", seed)
    return size


def pairs(folder: Path, size: int) -> Path:
    draw = torch.Generator().manual_seed(3)
    rows = []
    for row in range(4):
        names = [f"{row}-{side}.png" for side in (0, 1)]
        for name in names:
            pixels = torch.randint(0, 256, (size, size, 3), generator=draw, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name)
        rows.append({"prompt": f"picture {row}", "chosen": names[0], "rejected": names[1]})
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ours(program: Path, model: Path, work: Path, *extra) -> tuple:
    """Starting and finished latents of `votive sample`."""
    file = work / "latents.safetensors"
    votive(
        program, "sample", "--model", model, "--prompt", PROMPT, "--sampler", "ddim", "--steps", STEPS, "--cfg", CFG,
        "--out", work / "images", "--save-latents", file, "--json", *extra,
    )  # fmt: skip
    tensors = read_tensors(file)
    return tensors["latents"], tensors["final_latents"]


def pipeline(model: Path):
    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    return pipe


@torch.no_grad()
def theirs(pipe, latents) -> torch.Tensor:
    options = dict(num_inference_steps=STEPS, guidance_scale=CFG, latents=latents.clone(), output_type="latent")
    return pipe([PROMPT], **options).images


def apart(found, expected) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def train(program: Path, model: Path, data: Path, work: Path, targets: list, form: str) -> Path:
    recipe = work / f"{form}.toml"
    recipe.write_text(
        f"model.path = {json.dumps(str(model))}\ndata.path = {json.dumps(str(data))}\n[adapter.lora]\nrank = 3\nalpha = 5.0\n"
        f'format = "{form}"\ntargets = {json.dumps(targets)}\nrank_pattern = {{ {json.dumps(targets[0])} = 2 }}\n'
        "[objective.dpo]\nbeta = 100.0\n[optimizer]\nlr = 3e-2\n[train]\nsteps = 4\nbatch_size = 2\n"
    )
    votive(program, "train", recipe, "--out", work / f"run-{form}", "--json")
    return work / f"run-{form}"


def check_ours(program: Path, model: Path, data: Path, work: Path, targets: list) -> list:
    results = []
    for form in ("diffusers", "kohya"):
        run = train(program, model, data, work, targets, form)
        start, found = ours(program, model, work, "--adapter", run / "final")
        before = theirs(pipeline(model), start)
        files = [run / "final"]
        for target in ("diffusers", "kohya"):
            out = work / f"{form}-{target}.safetensors"
            votive(program, "export", run, "--to", target, "--out", out, "--json")
            files.append(out)
        for file in files:
            pipe = pipeline(model)
            weight = next(path.name for path in file.iterdir() if path.suffix == ".safetensors") if file.is_dir() else file.name
            pipe.load_lora_weights(file if file.is_dir() else file.parent, weight_name=weight)
            expected = theirs(pipe, start)
            results.append((f"ours, trained as {form}, {weight}", apart(found, expected), apart(before, expected)))
    return results


def check_theirs(program: Path, model: Path, work: Path, targets: list) -> list:
    text = LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, target_modules=["q_proj", "out_proj", "fc2"])
    results = []
    for use_dora in (False, True):
        pipe = pipeline(model)
        unet = LoraConfig(r=3, lora_alpha=5, init_lora_weights=False, use_dora=use_dora, target_modules=targets)
        pipe.unet.add_adapter(unet)
        pipe.text_encoder.add_adapter(text)
        shuffle_adapter(pipe.unet, 7)
        shuffle_adapter(pipe.text_encoder, 8)
        state, of_text = (get_peft_model_state_dict(part) for part in (pipe.unet, pipe.text_encoder))
        rooted = {name if name.startswith("text_model.") else f"text_model.{name}": value for name, value in of_text.items()}
        start, plain = ours(program, model, work)
        expected = theirs(pipe, start)
        files = {}
        folder = work / f"theirs-{use_dora}"
        pipe.save_lora_weights(
            folder, unet_lora_layers=state, text_encoder_lora_layers=of_text,
            unet_lora_adapter_metadata=pipe.unet.peft_config["default"].to_dict(),
            text_encoder_lora_adapter_metadata=pipe.text_encoder.peft_config["default"].to_dict(),
        )  # fmt: skip
        files["diffusers"] = folder
        if not use_dora:
            files["kohya"] = folder / "kohya.safetensors"
            tensors = kohya({"lora_unet_": (state, unet), "lora_te_": (rooted, text)})
            save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, files["kohya"])
            # diffusers' own conversion, whose α is the rank: the same after α/r went into B.
            scaled = {f"unet.{name}": value * (5 / 3 if "lora_B" in name else 1) for name, value in state.items()}
            converted = convert_state_dict_to_kohya(scaled)
            files["converted"] = folder / "converted.safetensors"
            save_file({name: value.detach().contiguous().clone() for name, value in converted.items()}, files["converted"])
        for name, file in files.items():
            wanted = expected
            if name == "converted":
                other = pipeline(model)
                other.load_lora_weights(folder, weight_name=file.name)
                wanted = theirs(other, start)
            adapter = file if file.suffix else folder / "pytorch_lora_weights.safetensors"
            _, found = ours(program, model, work, "--adapter", adapter)
            results.append((f"theirs, {name}{', DoRA' if use_dora else ''}", apart(found, wanted), apart(plain, wanted)))
            if name != "converted":
                again = work / f"again-{name}-{use_dora}.safetensors"
                votive(program, "export", adapter, "--model", model, "--to", "diffusers", "--out", again, "--json")
                other = pipeline(model)
                other.load_lora_weights(work, weight_name=again.name)
                results.append((f"theirs, {name}, exported", apart(theirs(other, start), wanted), apart(plain, wanted)))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, default=Path("target/release/votive"), help="the program")
    program = parser.parse_args().votive
    failed = 0
    for seed, (name, (shape, unet, targets)) in enumerate(SHAPES.items(), start=51):
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            size = build(work / "model", shape, unet, seed)
            data = pairs(work, size)
            results = check_ours(program, work / "model", data, work, targets)
            results += check_theirs(program, work / "model", work, targets)
            for what, worst, moved in results:
                ok = worst <= LATENTS and moved > 10 * LATENTS
                failed += not ok
                print(f"{'ok  ' if ok else 'FAIL'} {name}: {what}: within {worst:.1e}; the adapter moves {moved:.2f}", flush=True)
    if failed:
        raise SystemExit(f"{failed} comparisons failed")


if __name__ == "__main__":
    main()
