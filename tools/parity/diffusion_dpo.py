"""Diffusion-DPO steps of plain PyTorch on the tiny UNets of diffusion/, full and LoRA.

Run diffusion.py first. A batch of B pairs is 2B rows, chosen 0..B, rejected B..2B; the two images of a
pair share noise and timestep. error = mean over (C, H, W) of (prediction − target)², target = ε or v.

Writes diffusion_dpo/, for the runs full (sd1, ε), lora (sd1, ε) and lora_v (sd2, v):
  batches.safetensors      step<n>.{latents, noise, timesteps, prompt_embeds}, (2B, …)
  <run>.json               settings; per step the loss under both β conventions, and grad_norm before clipping
  <run>.steps.safetensors  step<n>.{policy_error, reference_error}, (2B,), before that step's update
  full.step<1|5>.safetensors                   UNet weights, named as in the checkpoint
  lora/start, lora/step1, lora/step5, lora_v/…   pytorch_lora_weights.safetensors as diffusers saves them

Trained on is the paper's convention, −log σ(½β·margin), margin = −[(L_w − L_l) − (R_w − R_l)];
`loss_diffusers` is −log σ(β·margin) at the same β, for checking values only.
"""

from __future__ import annotations

import contextlib
import copy

from common import target_folder, torch, write_json, write_made_by, write_tensors

import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

PAIRS, STEPS, TOKENS = 4, 5, 9
SETTINGS = {
    "beta": 1000.0, "lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "max_grad_norm": 1.0,
    "pairs_per_step": PAIRS, "steps": STEPS,
}  # fmt: skip
# alpha / r = 2, so that a forgotten scale shows.
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["to_k", "to_out.0", "to_q", "to_v"]}


def make_batches(cross_dim: int) -> list[dict]:
    # A draw whose first step has no gradient so near 0 that its rounding shows through AdamW (docs/log.md, 2026-11-30).
    generator = torch.Generator().manual_seed(81)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    def both(tensor):
        return torch.cat([tensor, tensor])

    return [
        {
            "latents": draw(2 * PAIRS, 4, 8, 8),
            "noise": both(draw(PAIRS, 4, 8, 8)),
            "timesteps": both(torch.randint(0, 1000, (PAIRS,), generator=generator)),
            "prompt_embeds": both(draw(PAIRS, TOKENS, cross_dim)),
        }
        for _ in range(STEPS)
    ]


def denoise_error(unet, scheduler, batch: dict):
    batch = {name: tensor.to(unet.dtype) if tensor.is_floating_point() else tensor for name, tensor in batch.items()}
    latents, noise, timesteps = batch["latents"], batch["noise"], batch["timesteps"]
    noisy = scheduler.add_noise(latents, noise, timesteps)
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    else:
        target = noise
    prediction = unet(noisy, timesteps, batch["prompt_embeds"]).sample
    return F.mse_loss(prediction, target, reduction="none").mean((1, 2, 3))


def train(policy, reference, without_adapter, scheduler, batches: list, keep_after: dict) -> tuple[list, dict]:
    """Runs the steps; `keep_after[n]` is called after n updates. Returns the metrics and the errors."""
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, lr=SETTINGS["lr"], betas=tuple(SETTINGS["betas"]), eps=SETTINGS["eps"],
        weight_decay=SETTINGS["weight_decay"], foreach=False,
    )  # fmt: skip
    beta, metrics, errors = SETTINGS["beta"], [], {}
    for step, batch in enumerate(batches):
        policy_error = denoise_error(policy, scheduler, batch)
        with torch.no_grad(), without_adapter():
            reference_error = denoise_error(reference, scheduler, batch)
        chosen, rejected = (policy_error - reference_error).chunk(2)
        margin = -(chosen - rejected)
        loss = -F.logsigmoid(0.5 * beta * margin).mean()
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(trainable, SETTINGS["max_grad_norm"], foreach=False)
        optimizer.step()
        metrics.append({
            "step": step, "loss": loss.item(), "loss_diffusers": -F.logsigmoid(beta * margin).mean().item(),
            "grad_norm": grad_norm.item(),
        })  # fmt: skip
        errors |= {f"step{step}.policy_error": policy_error.detach(), f"step{step}.reference_error": reference_error}
        keep_after.get(step + 1, lambda: None)()
    return metrics, errors


def load(pipeline_folder, dtype=torch.float32):
    unet = UNet2DConditionModel.from_pretrained(pipeline_folder, subfolder="unet").to(dtype).train()
    return unet, DDPMScheduler.from_pretrained(pipeline_folder, subfolder="scheduler")


def full_steps(pipeline_folder, batches: list, dtype=torch.float32):
    policy, scheduler = load(pipeline_folder, dtype)
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    kept = {}

    def keep(count):
        kept[count] = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}

    saves = {n: (lambda n=n: keep(n)) for n in (1, STEPS)}
    metrics, errors = train(policy, reference, contextlib.nullcontext, scheduler, batches, saves)
    return metrics, errors, kept


def lora_steps(pipeline_folder, batches: list, dtype=torch.float32, folder=None):
    """As full_steps on an adapter; saved under `folder` where one is given."""
    policy, scheduler = load(pipeline_folder)
    policy.requires_grad_(False)
    torch.manual_seed(72)
    policy.add_adapter(LoraConfig(**LORA))
    policy.to(dtype)
    kept = {}

    def keep(name):
        # A copy: saving must not see later updates.
        state = {key: tensor.detach().clone() for key, tensor in get_peft_model_state_dict(policy).items()}
        kept[name] = state
        if folder is not None:
            StableDiffusionPipeline.save_lora_weights(
                folder / name, unet_lora_layers=convert_state_dict_to_diffusers(state),
                unet_lora_adapter_metadata=LORA,
            )  # fmt: skip

    @contextlib.contextmanager
    def without_adapter():
        policy.disable_adapters()
        yield
        policy.enable_adapters()

    keep("start")
    saves = {n: (lambda n=n: keep(f"step{n}")) for n in (1, STEPS)}
    metrics, errors = train(policy, policy, without_adapter, scheduler, batches, saves)
    return metrics, errors, kept


def distance(weights: dict, exact: dict) -> dict:
    """Largest difference of a weight from the run in float64, at each kept point."""

    def largest(point):
        ours, truth = weights[point], exact[point]
        return max((ours[name].double() - truth[name]).abs().max().item() for name in truth)

    return {str(point): largest(point) for point in exact}


def main() -> None:
    folder = target_folder("diffusion_dpo", __doc__)
    models = folder.parent / "diffusion"
    batches = make_batches(cross_dim=32)
    write_tensors(
        folder / "batches.safetensors",
        {f"step{step}.{name}": tensor for step, batch in enumerate(batches) for name, tensor in batch.items()},
    )

    def report(run, model, metrics, errors, kept, exact, extra):
        head = {"model": f"diffusion/{model}", "settings": SETTINGS} | extra
        write_json(folder / f"{run}.json", head | {"steps": metrics, "float32_against_float64": distance(kept, exact)})
        write_tensors(folder / f"{run}.steps.safetensors", errors)

    metrics, errors, kept = full_steps(models / "sd1", batches)
    _, _, exact = full_steps(models / "sd1", batches, torch.float64)
    report("full", "sd1", metrics, errors, kept, exact, {})
    for count, tensors in kept.items():
        write_tensors(folder / f"full.step{count}.safetensors", tensors)

    for run, model in (("lora", "sd1"), ("lora_v", "sd2")):
        metrics, errors, kept = lora_steps(models / model, batches, folder=folder / run)
        _, _, exact = lora_steps(models / model, batches, torch.float64)
        report(run, model, metrics, errors, kept, exact, {"lora": LORA})
    write_made_by(folder, "diffusion_dpo.py", ["torch", "diffusers", "peft"], {
        "models": "diffusion/sd1 for full and lora (epsilon), diffusion/sd2 for lora_v (v_prediction)",
        "optimizer": "torch.optim.AdamW; clip_grad_norm_ before each update; no learning-rate schedule",
        "float32_against_float64": "largest difference of a weight between this run and the same run in float64",
    })  # fmt: skip


if __name__ == "__main__":
    main()
