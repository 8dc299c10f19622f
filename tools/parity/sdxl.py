"""A tiny Stable Diffusion XL pipeline saved by diffusers, what diffusers computes with it, and a Diffusion-DPO step.

Writes sdxl/pipeline/: a whole pipeline folder with expected/ beside its parts, as diffusion.py does:
  unet.safetensors           forward with a pooled prompt and sizes per sample
  text_encoders.safetensors  token ids of both tokenizers, what the pipeline makes of them, and the pooled prompt that an
                             encoder with the end token of older configurations gives
  sample.<sampler>.<steps>.<no_prompt|negative>.safetensors   a guided run without and with a negative prompt
  expected.json              prompts, guidance scale, and how far float32 rounding moves each number
  dpo.safetensors, dpo.json  one Diffusion-DPO step on given latents: errors, loss, norm of the gradient
and sdxl/zero_snr/: the v-predicting pipeline of diffusion/sd2 on a schedule with zero terminal SNR
  scheduler_config.json      in place of the one of diffusion/sd2
  sample.<sampler>.<steps>.safetensors, dpo.safetensors, dpo.json   as above

The U-Net has SDXL's layout: no attention at its first level, one transformer block at the second, two at the third,
heads per level, linear projections; a pooled prompt and six sizes beside the time.
"""

from __future__ import annotations

import copy
import json

from common import FIXTURES, shuffle_parameters, target_folder, torch, write_json, write_made_by, write_tensors

import diffusers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from diffusion import LONG_PROMPT, PROMPTS, SAMPLERS, in_float64, rounding, train_clip_tokenizer

diffusers.logging.disable_progress_bar()

GUIDANCE, STEPS, NEGATIVE = 5.0, 9, "white"
WIDTHS, PROJECTION = (16, 24), 20
TIME_IDS = torch.tensor([[40.0, 30, 4, 0, 32, 32], [1024, 1024, 0, 0, 1024, 1024], [17, 600, 0, 281, 24, 40]])
UNET = dict(
    sample_size=8, block_out_channels=(4, 8, 12), layers_per_block=1, norm_num_groups=2, use_linear_projection=True,
    cross_attention_dim=sum(WIDTHS), attention_head_dim=[1, 2, 4], transformer_layers_per_block=[1, 1, 2],
    addition_embed_type="text_time", addition_time_embed_dim=6,
    projection_class_embeddings_input_dim=6 * 6 + PROJECTION,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
)  # fmt: skip
DPO = {"beta": 1000.0, "pairs": 3, "policy_scale": 1.0078125}


def text_encoder(kind, tokenizer, width: int, seed: int, **other):
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer) + 2, hidden_size=width, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **other,
    )  # fmt: skip
    model = kind(config)
    shuffle_parameters(model, seed, 0.1)
    return model


def build_pipeline(folder, seed: int):
    first = train_clip_tokenizer(folder / "tokenizer", "<|endoftext|>", merge_budget=20)
    second = train_clip_tokenizer(folder / "tokenizer_2", "!", merge_budget=20)
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(in_channels=4, out_channels=4, **UNET)
    vae = AutoencoderKL(
        block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, sample_size=16, latent_channels=4,
        scaling_factor=0.13025, force_upcast=True,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    shuffle_parameters(unet, seed + 1, 0.05)
    shuffle_parameters(vae, seed + 2, 0.05)
    pipeline = StableDiffusionXLPipeline(
        vae=vae, unet=unet, tokenizer=first, tokenizer_2=second,
        text_encoder=text_encoder(CLIPTextModel, first, WIDTHS[0], seed + 3, hidden_act="quick_gelu"),
        text_encoder_2=text_encoder(
            CLIPTextModelWithProjection, second, WIDTHS[1], seed + 4, hidden_act="gelu", projection_dim=PROJECTION
        ),
        # What SDXL's own repository says.
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
        ),
        add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    # diffusers saves the class's defaults; the samplers here read this file with their own.
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    write_json(path, config | {"clip_sample": False, "set_alpha_to_one": False})
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def expected_unet(unet) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(81)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    tensors, report = {}, {}
    for name, size in (("square", (8, 8)), ("oblong", (8, 12))):
        values = {
            "latents": draw(3, 4, *size), "timesteps": torch.tensor([0, 437, 999]), "prompt_embeds": draw(3, 7, sum(WIDTHS)),
            "text_embeds": draw(3, PROJECTION), "time_ids": TIME_IDS,
        }  # fmt: skip

        def forward(model, cast):
            added = {key: cast(values[key]) for key in ("text_embeds", "time_ids")}
            latents, embeds = cast(values["latents"]), cast(values["prompt_embeds"])
            return model(latents, values["timesteps"], embeds, added_cond_kwargs=added).sample

        values["output"] = forward(unet, lambda tensor: tensor)
        exact = forward(in_float64(unet), lambda tensor: tensor.double())
        report[f"unet.{name}"] = rounding(values["output"], exact)
        tensors |= {f"{name}.{key}": value for key, value in values.items()}
    return tensors, report


def expected_text_encoders(pipeline) -> tuple[dict, dict]:
    prompts = [*PROMPTS, "", LONG_PROMPT]
    options = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
    ids = [tokenizer(prompts, **options).input_ids for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)]
    embeds, _, pooled, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    exact = copy.deepcopy(pipeline).to(torch.float64).encode_prompt(prompts, do_classifier_free_guidance=False)
    old = copy.deepcopy(pipeline.text_encoder_2)
    old.text_model.eos_token_id = 2
    old_ids = ids[1].clone()
    old_ids[0, 3] = old.config.vocab_size - 1
    tensors = {
        "input_ids": ids[0], "input_ids_2": ids[1], "prompt_embeds": embeds, "pooled_prompt_embeds": pooled,
        "input_ids_of_old_config": old_ids, "pooled_of_old_config": old(old_ids).text_embeds,
    }  # fmt: skip
    return tensors, {"prompt_embeds": rounding(embeds, exact[0]), "pooled_prompt_embeds": rounding(pooled, exact[2])}


def run_sampler(pipeline, sampler: str, start, **prompts):
    pipeline.scheduler = SAMPLERS[sampler].from_config(pipeline.scheduler.config)
    return pipeline(
        PROMPTS, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=start.clone(), output_type="latent", **prompts
    ).images


def expected_samples(pipeline, cases: dict) -> tuple[dict, dict]:
    start = torch.randn(len(PROMPTS), 4, 8, 8, generator=torch.Generator().manual_seed(34))
    exact = copy.deepcopy(pipeline).to(torch.float64)
    exact.set_progress_bar_config(disable=True)
    files, report = {}, {}
    for sampler in ("ddim", "euler", "dpmpp"):
        for case, prompts in cases.items():
            key = f"sample.{sampler}.{STEPS}{case}"
            final = run_sampler(pipeline, sampler, start, **prompts)
            report[key] = rounding(final, run_sampler(exact, sampler, start.double(), **prompts).double())
            files[key] = {"latents": start, "final_latents": final}
    return files, report


def dpo_step(unet, scheduler, added: dict, cross_dim: int, cast=lambda tensor: tensor) -> tuple[dict, dict]:
    """One step of a policy that has moved away from its reference."""
    generator = torch.Generator().manual_seed(82)
    pairs = DPO["pairs"]

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    def both(tensor):
        return torch.cat([tensor, tensor])

    batch = {
        "latents": draw(2 * pairs, 4, 8, 8), "noise": both(draw(pairs, 4, 8, 8)),
        "timesteps": both(torch.tensor([999, 23, 640])), "prompt_embeds": both(draw(pairs, 9, cross_dim)),
    }  # fmt: skip
    batch |= {name: both(draw(pairs, width)) if width else both(TIME_IDS) for name, width in added.items()}
    latents, noise, timesteps = cast(batch["latents"]), cast(batch["noise"]), batch["timesteps"]
    noisy = scheduler.add_noise(latents, noise, timesteps)
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise

    def errors(model):
        told = {name: cast(batch[name]) for name in added}
        prediction = model(noisy, timesteps, cast(batch["prompt_embeds"]), added_cond_kwargs=told or None).sample
        return ((prediction - target) ** 2).mean((1, 2, 3))

    policy = copy.deepcopy(unet).requires_grad_(True)
    for parameter in policy.parameters():
        parameter.data.mul_(DPO["policy_scale"])
    with torch.enable_grad():
        policy_error = errors(policy)
        reference_error = errors(unet).detach()
        chosen, rejected = (policy_error - reference_error).chunk(2)
        loss = -torch.nn.functional.logsigmoid(-0.5 * DPO["beta"] * (chosen - rejected)).mean()
        loss.backward()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in policy.parameters()])
    batch |= {"policy_error": policy_error, "reference_error": reference_error}
    return batch, DPO | {"loss": loss.item(), "grad_norm": norm.item()}


def write_step(folder, unet, scheduler, added: dict, cross_dim: int) -> None:
    batch, numbers = dpo_step(unet, scheduler, added, cross_dim)
    _, exact = dpo_step(in_float64(unet), scheduler, added, cross_dim, lambda tensor: tensor.double())
    write_tensors(folder / "dpo.safetensors", batch)
    write_json(folder / "dpo.json", numbers | {"float64": {key: exact[key] for key in ("loss", "grad_norm")}})


def write_zero_snr(folder) -> dict:
    pipeline = StableDiffusionPipeline.from_pretrained(FIXTURES / "diffusion" / "sd2")
    pipeline.set_progress_bar_config(disable=True)
    config = dict(pipeline.scheduler.config) | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipeline.scheduler = DDIMScheduler.from_config(config)
    pipeline.scheduler.save_config(folder)
    files, report = expected_samples(pipeline, {"": {}})
    for file, tensors in files.items():
        write_tensors(folder / f"{file}.safetensors", tensors)
    write_step(folder, pipeline.unet, DDPMScheduler.from_config(config), {}, pipeline.unet.config.cross_attention_dim)
    return report


@torch.no_grad()
def main() -> None:
    folder = target_folder("sdxl", __doc__)
    pipeline = build_pipeline(folder / "pipeline", 91)
    expected = folder / "pipeline" / "expected"
    files, report = expected_samples(pipeline, {".no_prompt": {}, ".negative": {"negative_prompt": NEGATIVE}})
    for file, (tensors, rounded) in {
        "unet": expected_unet(pipeline.unet), "text_encoders": expected_text_encoders(pipeline)
    }.items():  # fmt: skip
        files[file] = tensors
        report |= rounded
    for file, tensors in files.items():
        write_tensors(expected / f"{file}.safetensors", tensors)
    added = {"text_embeds": PROJECTION, "time_ids": None}
    write_step(expected, pipeline.unet, DDPMScheduler.from_config(pipeline.scheduler.config), added, sum(WIDTHS))
    zero_snr = write_zero_snr(folder / "zero_snr")
    write_json(expected / "expected.json", {
        "prompts": PROMPTS, "negative_prompt": NEGATIVE, "guidance_scale": GUIDANCE, "steps": STEPS,
        "float32_against_float64": report, "zero_snr.float32_against_float64": zero_snr,
    })  # fmt: skip
    write_made_by(folder, "sdxl.py", ["torch", "diffusers", "transformers", "tokenizers"], {
        "dpo": "the policy's weights are those of the pipeline, the reference's, times policy_scale",
        "zero_snr": "reads diffusion/sd2",
    })  # fmt: skip


if __name__ == "__main__":
    main()
