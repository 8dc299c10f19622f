"""Two tiny Stable Diffusion pipelines saved by diffusers, and what diffusers computes with them.

Writes diffusion/<sd1|sd2>/: a whole pipeline folder (model_index.json, unet, vae, text_encoder, tokenizer,
scheduler) and expected/ beside it:
  unet.safetensors          forward at one timestep per sample, square and oblong latents
  vae.safetensors           encoder mean and log-variance, decoder output
  text_encoder.safetensors  token ids of prompts and the last hidden state
  sample.<sampler>.<steps>.safetensors   a guided run of the whole pipeline from given starting latents
  expected.json             prompts, guidance scale, and how far float32 rounding moves each number

sd1 is built like Stable Diffusion 1.5: ε-prediction, convolutions as attention projections, one number of
heads, attention from the first level on, quick_gelu, and that repository's older tensor names. sd2 like 2.1: v-prediction, linear projections, heads
per level, gelu, "!" as padding; and, beyond 2.1, no attention at the first level of the UNet nor in the VAE.
"""

from __future__ import annotations

import copy
import json
import random

from common import read_tensors, shuffle_parameters, target_folder, torch, write_json, write_made_by, write_tensors

import diffusers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.schedulers import scheduling_ddpm
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

diffusers.logging.disable_progress_bar()

PROMPTS = ["a red circle above a blue square", "Two green  triangles, on white!"]
LONG_PROMPT = "a red circle and " * 40  # cut at 77 tokens
GUIDANCE = 5.0
SAMPLERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "ddpm": DDPMScheduler,
    "pndm": PNDMScheduler,
}
# What Stable Diffusion's own folder says, and a folder for another sampler does not.
OPTIONS = {"pndm": {"skip_prk_steps": True}}
STEPS = (8, 20)
CROSS_DIM = 32

PIPELINES = {
    "sd1": {
        "prediction_type": "epsilon",
        "hidden_act": "quick_gelu",
        "pad_token": "<|endoftext|>",
        "unet": dict(
            sample_size=8, block_out_channels=(8, 16, 24), layers_per_block=2, norm_num_groups=4,
            cross_attention_dim=CROSS_DIM, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        ),
        "vae": dict(block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4, sample_size=32),
    },
    "sd2": {
        "prediction_type": "v_prediction",
        "hidden_act": "gelu",
        "pad_token": "!",
        "unet": dict(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
            cross_attention_dim=CROSS_DIM, attention_head_dim=[2, 4], use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        "vae": dict(
            block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=8, sample_size=16,
            mid_block_add_attention=False,
        ),
    },
}  # fmt: skip


def train_clip_tokenizer(folder, pad_token: str, merge_budget: int = 60):
    """CLIP's byte-pair encoding (every byte alone and as a word's end) on made captions."""
    draw = random.Random(2)
    words = (
        "a red green blue yellow circle square triangle above below left of right two three on white black and"
    ).split()
    captions = [" ".join(draw.choices(words, k=9)) for _ in range(300)]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=2 * len(alphabet) + merge_budget, initial_alphabet=alphabet, end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )  # fmt: skip
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]][:merge_budget]
    tokens = alphabet + [char + "</w>" for char in alphabet] + ["".join(merge) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    # The two files that every CLIP repository holds; transformers 5 itself writes only tokenizer.json.
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, pad_token=pad_token)


def build_pipeline(folder, name: str, seed: int):
    shape = PIPELINES[name]
    tokenizer = train_clip_tokenizer(folder / "tokenizer", shape["pad_token"])
    torch.manual_seed(seed)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=CROSS_DIM, intermediate_size=64, projection_dim=CROSS_DIM,
            num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=77, hidden_act=shape["hidden_act"],
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    levels = len(shape["vae"]["block_out_channels"])
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, scaling_factor=0.18215,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        **shape["vae"],
    )  # fmt: skip
    unet = UNet2DConditionModel(in_channels=4, out_channels=4, **shape["unet"])
    for offset, (model, spread) in enumerate([(text_encoder, 0.1), (vae, 0.05), (unet, 0.05)]):
        shuffle_parameters(model, seed + offset, spread)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type=shape["prediction_type"],
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    if name == "sd1":
        use_older_names(folder)
    # What was written is what is measured.
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def use_older_names(folder) -> None:
    """Renames tensors to what the Stable Diffusion 1.5 repository holds: CLIP's prefix, the VAE's old attention."""
    text_encoder = folder / "text_encoder" / "model.safetensors"
    write_tensors(text_encoder, {f"text_model.{name}": tensor for name, tensor in read_tensors(text_encoder).items()})
    older = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed, vae = {}, folder / "vae" / "diffusion_pytorch_model.safetensors"
    for name, tensor in read_tensors(vae).items():
        for new, old in older.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    write_tensors(vae, renamed)


def in_float64(model):
    return copy.deepcopy(model).double()


def rounding(ours, exact) -> float:
    """Largest difference between the float32 and the float64 result, relative to the largest value."""
    return float(f"{((ours.double() - exact).abs().max() / exact.abs().max()).item():.3g}")


def expected_unet(unet) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(31)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    cases = {
        "square": (draw(4, 4, 8, 8), torch.tensor([0, 17, 500, 999]), draw(4, 7, CROSS_DIM)),
        "oblong": (draw(2, 4, 8, 12), torch.tensor([250, 981]), draw(2, 77, CROSS_DIM)),
    }
    tensors, report = {}, {}
    for name, (latents, timesteps, prompt_embeds) in cases.items():
        output = unet(latents, timesteps, prompt_embeds).sample
        exact = in_float64(unet)(latents.double(), timesteps, prompt_embeds.double()).sample
        report[f"unet.{name}"] = rounding(output, exact)
        values = {"latents": latents, "timesteps": timesteps, "prompt_embeds": prompt_embeds, "output": output}
        tensors |= {f"{name}.{key}": value for key, value in values.items()}
    return tensors, report


def expected_vae(vae) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(32)
    size = vae.config.sample_size
    images = 2 * torch.rand(2, 3, size, size, generator=generator) - 1
    posterior = vae.encode(images).latent_dist
    latents = torch.randn(posterior.mean.shape, generator=generator)
    decoded = vae.decode(latents).sample
    exact = in_float64(vae)
    tensors = {
        "images": images, "mean": posterior.mean, "logvar": posterior.logvar, "latents": latents, "decoded": decoded
    }  # fmt: skip
    return tensors, {
        "vae.mean": rounding(posterior.mean, exact.encode(images.double()).latent_dist.mean),
        "vae.decoded": rounding(decoded, exact.decode(latents.double()).sample),
    }


def expected_text_encoder(pipeline) -> tuple[dict, dict]:
    prompts = [*PROMPTS, "", LONG_PROMPT]
    ids = pipeline.tokenizer(
        prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    hidden = pipeline.text_encoder(ids).last_hidden_state
    exact = in_float64(pipeline.text_encoder)(ids).last_hidden_state
    tensors = {"input_ids": ids, "last_hidden_state": hidden}
    return tensors, {"text_encoder": rounding(hidden, exact)}


class RecordedNoise:
    """Stands in for DDPM's noise source, and remembers what it drew."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn = []

    def __call__(self, shape, dtype=None, **_ignored):
        self.drawn.append(torch.randn(shape, generator=self.generator))
        return self.drawn[-1].to(dtype)


def run_sampler(pipeline, sampler: str, steps: int, start) -> dict:
    """One guided run; `trajectory` holds the latents after each step."""
    pipeline.scheduler = SAMPLERS[sampler].from_config(pipeline.scheduler.config, **OPTIONS.get(sampler, {}))
    trajectory, noise = [], RecordedNoise(33)
    original, scheduling_ddpm.randn_tensor = scheduling_ddpm.randn_tensor, noise
    try:
        final = pipeline(
            PROMPTS, num_inference_steps=steps, guidance_scale=GUIDANCE, latents=start.clone(), output_type="latent",
            callback_on_step_end=lambda _pipe, _step, _t, kept: trajectory.append(kept["latents"]) or {},
        ).images  # fmt: skip
    finally:
        scheduling_ddpm.randn_tensor = original
    tensors = {"final_latents": final, "timesteps": pipeline.scheduler.timesteps}
    if steps == min(STEPS):
        tensors["trajectory"] = torch.stack(trajectory)
    if noise.drawn:
        tensors["step_noise"] = torch.stack(noise.drawn)
    return tensors


def expected_samples(pipeline) -> tuple[dict, dict]:
    start = torch.randn(len(PROMPTS), 4, 8, 8, generator=torch.Generator().manual_seed(34))
    exact_pipeline = copy.deepcopy(pipeline).to(torch.float64)
    exact_pipeline.set_progress_bar_config(disable=True)
    files, report = {}, {}
    for sampler in SAMPLERS:
        for steps in STEPS:
            tensors = run_sampler(pipeline, sampler, steps, start)
            exact = run_sampler(exact_pipeline, sampler, steps, start.double())
            key = f"sample.{sampler}.{steps}"
            report[key] = rounding(tensors["final_latents"], exact["final_latents"].double())
            files[key] = {"latents": start} | tensors
    return files, report


@torch.no_grad()
def main() -> None:
    folder = target_folder("diffusion", __doc__)
    for seed, name in ((41, "sd1"), (51, "sd2")):
        pipeline = build_pipeline(folder / name, name, seed)
        files, report = expected_samples(pipeline)
        for file, (tensors, rounded) in {
            "unet": expected_unet(pipeline.unet),
            "vae": expected_vae(pipeline.vae),
            "text_encoder": expected_text_encoder(pipeline),
        }.items():
            files[file] = tensors
            report |= rounded
        for file, tensors in files.items():
            write_tensors(folder / name / "expected" / f"{file}.safetensors", tensors)
        write_json(
            folder / name / "expected" / "expected.json",
            {
                "prompts": PROMPTS,
                "text_encoder_prompts": [*PROMPTS, "", LONG_PROMPT],
                "negative_prompt": "",
                "guidance_scale": GUIDANCE,
                "float32_against_float64": report,
            },
        )
    write_made_by(folder, "diffusion.py", ["torch", "diffusers", "transformers", "tokenizers"], {
        "samples": "latents is the starting noise with unit variance (the pipeline multiplies it by "
        "init_noise_sigma); final_latents is what the sampler leaves, not divided by the scaling factor; step_noise is "
        "what DDPM adds, one entry a step with t > 0",
        "float32_against_float64": "largest difference from the same run in float64 over the largest value: no other "
        "float32 program can be expected to come closer",
    })  # fmt: skip


if __name__ == "__main__":
    main()
