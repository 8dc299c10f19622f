"""Golden values of more of diffusers' samplers, and of what can be asked of all: images to start from, η, zero terminal SNR.

Writes samplers/cases.json (one entry a case) and samplers/values.safetensors:
  start, noise                  (5,) unit-variance start and (25, 5) noise of step n
  <case>.timesteps              as the scheduler lists them, without the steps that an image skips
  <case>.trajectory             (calls + 1, 5): the start as the first call expects it, and each state
  zero_snr.alphas_cumprod       (1000,) of Stable Diffusion's betas, rescaled
  log_density.<kind>.<eta>.*    one DDIM step: prediction, latents and the latents after it (2, 5), DDPO's log-density (2,) and
                                the gradient of its sum by the prediction, f64

The made-up model is tanh(0.3·x + t/1000) of the scaled model input x; its value is read as ε or as v. With `image` the
start is an image: noise row 24 goes on `start` as the scheduler adds it at the first remaining timestep.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from common import target_folder, torch, write_json, write_made_by, write_tensors

import diffusers
from diffusers.schedulers import scheduling_ddpm, scheduling_euler_ancestral_discrete

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLASSES = {
    "ddim": "DDIMScheduler",
    "ddim_inverse": "DDIMInverseScheduler",
    "ddpm": "DDPMScheduler",
    "dpmpp": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "pndm": "PNDMScheduler",
}
KINDS = ("epsilon", "v_prediction")
START = torch.tensor([0.0, 1.0, -0.5, 2.25, -3.0])
NOISE = torch.randn(25, len(START), generator=torch.Generator().manual_seed(67))


@dataclass(frozen=True)
class Case:
    sampler: str
    timestep_spacing: str
    prediction_type: str
    steps: int
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    rescale_betas_zero_snr: bool = False
    eta: float = 0.0
    strength: float = 1.0
    image: bool = False

    @property
    def name(self) -> str:
        parts = [self.sampler, self.timestep_spacing, self.prediction_type, str(self.steps)]
        parts += [f"offset{self.steps_offset}"] * (self.steps_offset != 1) + ["one"] * self.set_alpha_to_one + ["zero_snr"] * self.rescale_betas_zero_snr
        parts += [f"eta{self.eta}"] * (self.eta > 0) + [f"image{self.strength}"] * self.image
        return ".".join(parts)


def build(case: Case):
    shared = dict(
        num_train_timesteps=1000, timestep_spacing=case.timestep_spacing, prediction_type=case.prediction_type,
        steps_offset=case.steps_offset, **BETAS,
    )  # fmt: skip
    if case.sampler in ("ddim", "ddim_inverse"):
        shared |= {"clip_sample": False, "set_alpha_to_one": case.set_alpha_to_one}
    if case.sampler == "ddpm":
        shared["clip_sample"] = False
    if case.sampler == "pndm":
        shared |= {"skip_prk_steps": True, "set_alpha_to_one": case.set_alpha_to_one}
    else:
        shared["rescale_betas_zero_snr"] = case.rescale_betas_zero_snr
    return getattr(diffusers, CLASSES[case.sampler])(**shared)


def cases() -> list[Case]:
    listed = []
    for kind in KINDS:
        for spacing in ("leading", "trailing", "linspace"):
            for steps in (4, 10, 25):
                listed += [Case(sampler, spacing, kind, steps) for sampler in ("euler_a", "pndm")]
        for spacing in ("leading", "trailing"):
            for one in (False, True):
                listed += [Case("ddim_inverse", spacing, kind, steps, 1, one) for steps in (4, 10)]
        listed += [Case("pndm", "leading", kind, 10, 1, True), Case("pndm", "leading", kind, 10, 0)]
        listed += [Case("pndm", "leading", kind, steps) for steps in (1, 2)]
        for eta in (0.3, 0.5):
            listed.append(Case("ddim", "leading", kind, 10, eta=eta))
        # PNDM is left out: from an image diffusers repeats the wrong call, so there is nothing to agree with.
        for strength in (0.35, 0.8, 1.0):
            for sampler in ("ddim", "ddpm", "dpmpp", "euler", "euler_a"):
                for spacing in ("leading", "trailing"):
                    listed.append(Case(sampler, spacing, kind, 10, strength=strength, image=True))
        # At the first timestep nothing is left of the latents, from which ε cannot lead back; leading never goes there.
        listed += [
            Case(sampler, spacing, kind, 10, rescale_betas_zero_snr=True)
            for sampler in ("ddim", "ddpm", "euler", "euler_a", "dpmpp")
            for spacing in (("leading",) if kind == "epsilon" else ("leading", "trailing"))
        ]
    return listed


def step_options(case: Case, index: int) -> dict:
    if case.sampler == "ddim":
        return {"eta": case.eta, "variance_noise": NOISE[index][None] if case.eta > 0 else None}
    return {}


def run(case: Case) -> dict:
    scheduler = build(case)
    scheduler.set_timesteps(case.steps)
    timesteps = scheduler.timesteps
    if case.image:
        skipped = case.steps - min(int(case.steps * case.strength), case.steps)
        timesteps = timesteps[skipped:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        state = scheduler.add_noise(START[None], NOISE[24][None], timesteps[:1])
    else:
        state = START[None] * scheduler.init_noise_sigma
    trajectory = [state]
    modules = (scheduling_ddpm, scheduling_euler_ancestral_discrete)
    originals = [module.randn_tensor for module in modules]
    try:
        for index, t in enumerate(timesteps):
            for module in modules:
                module.randn_tensor = lambda *_args, index=index, **_options: NOISE[index][None]
            output = torch.tanh(0.3 * scheduler.scale_model_input(state, t) + t / 1000)
            state = scheduler.step(output, t, state, **step_options(case, index)).prev_sample
            trajectory.append(state)
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.randn_tensor = original
    return {f"{case.name}.timesteps": timesteps.clone(), f"{case.name}.trajectory": torch.cat(trajectory).float()}


def log_density(kind: str, eta: float) -> dict:
    """DDPO's log-probability of a step (mean over all but the batch), on diffusers' own mean."""
    scheduler = diffusers.DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type=kind, **BETAS
    )
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(20)
    t = scheduler.timesteps[9]
    latents = torch.stack([START, NOISE[0]]).double()
    prediction = torch.stack([NOISE[1], NOISE[2]]).double().requires_grad_()
    zero = torch.zeros_like(latents)
    mean = scheduler.step(prediction, t, latents, eta=eta, variance_noise=zero).prev_sample
    std = eta * scheduler._get_variance(t, t - 1000 // 20) ** 0.5
    after = (mean + std * torch.stack([NOISE[3], NOISE[4]]).double()).detach()
    values = -((after - mean) ** 2) / (2 * std**2) - torch.log(std) - math.log(math.sqrt(2 * math.pi))
    values = values.mean(dim=1)
    values.sum().backward()
    named = {
        "prediction": prediction, "latents": latents, "after": after, "value": values, "gradient": prediction.grad,
    }  # fmt: skip
    return {f"log_density.{kind}.{eta}.{name}": value for name, value in named.items()}


def main() -> None:
    folder = target_folder("samplers", __doc__)
    rescaled = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, **BETAS)
    tensors = {"start": START, "noise": NOISE, "zero_snr.alphas_cumprod": rescaled.alphas_cumprod}
    listed = cases()
    assert len({case.name for case in listed}) == len(listed)
    for case in listed:
        tensors |= run(case)
    for kind in KINDS:
        for eta in (0.5, 1.0):
            tensors |= log_density(kind, eta)
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    assert not bad, bad
    write_tensors(folder / "values.safetensors", tensors)
    listed = [{"name": case.name} | asdict(case) for case in listed]
    write_json(folder / "cases.json", {"betas": BETAS, "cases": listed})
    write_made_by(folder, "samplers.py", ["torch", "diffusers"], {
        "float32": "diffusers computes betas and their products in float32; log densities are in float64 from there",
        "pndm from an image": "not here: diffusers repeats whichever call comes second in the list that it cut off",
    })  # fmt: skip


if __name__ == "__main__":
    main()
