"""Golden values of diffusers' schedulers: timesteps, ᾱ, σ and whole trajectories with a made-up model.

Writes schedulers/cases.json (one entry a case: sampler, settings, number of steps) and
schedulers/values.safetensors:
  <beta_schedule>.alphas_cumprod     (1000,), and add_noise / get_velocity at four timesteps
  <case>.timesteps                   as the scheduler lists them
  <case>.sigmas                      Euler and DPM-Solver++ only, with the final one
  <case>.init_noise_sigma            scalar
  <case>.trajectory                  (steps + 1, 5): the start, already times init_noise_sigma, and each state
  start, noise                       (5,) unit-variance start and (25, 5) noise of step n (DDPM; DDIM with η = 1)

The made-up model is tanh(0.3·x + t/1000) of the scaled model input x; its value is read as ε or as v.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

from common import target_folder, torch, write_json, write_made_by, write_tensors

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.schedulers import scheduling_ddpm

BETAS = {
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "linear": {"beta_start": 0.0001, "beta_end": 0.02},
    "squaredcos_cap_v2": {},
}
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction")
STEPS_OFFSET = 1
START = torch.tensor([0.0, 1.0, -0.5, 2.25, -3.0])
NOISE = torch.randn(25, len(START), generator=torch.Generator().manual_seed(61))


@dataclass(frozen=True)
class Case:
    sampler: str
    beta_schedule: str
    timestep_spacing: str
    prediction_type: str
    steps: int
    eta: float = 0.0
    set_alpha_to_one: bool = False

    @property
    def name(self) -> str:
        kind = self.sampler
        if self.sampler == "ddim":
            kind += f"_eta{self.eta:.0f}_{'one' if self.set_alpha_to_one else 'first'}"
        return f"{kind}.{self.beta_schedule}.{self.timestep_spacing}.{self.prediction_type}.{self.steps}"


def build(case: Case):
    shared = dict(
        num_train_timesteps=1000, beta_schedule=case.beta_schedule, timestep_spacing=case.timestep_spacing,
        prediction_type=case.prediction_type, steps_offset=STEPS_OFFSET, **BETAS[case.beta_schedule],
    )  # fmt: skip
    match case.sampler:
        case "ddpm":
            return DDPMScheduler(clip_sample=False, variance_type="fixed_small", **shared)
        case "ddim":
            return DDIMScheduler(clip_sample=False, set_alpha_to_one=case.set_alpha_to_one, **shared)
        case "euler":
            return EulerDiscreteScheduler(**shared)
        case "dpmpp":
            return DPMSolverMultistepScheduler(
                algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", **shared
            )


def cases() -> list[Case]:
    # Every combination with Stable Diffusion's own betas; the other two schedules at one number of steps.
    grid = [("scaled_linear", steps) for steps in (4, 10, 25)] + [("linear", 10), ("squaredcos_cap_v2", 10)]
    ddim = [("ddim", eta, alpha_one) for eta in (0.0, 1.0) for alpha_one in (False, True)]
    samplers = [("ddpm", 0.0, False), *ddim, ("euler", 0.0, False), ("dpmpp", 0.0, False)]
    return [
        Case(sampler, betas, spacing, prediction, steps, eta, alpha_one)
        for (sampler, eta, alpha_one), (betas, steps), spacing, prediction in itertools.product(
            samplers, grid, SPACINGS, PREDICTIONS
        )
    ]


def step_options(case: Case, index: int) -> dict:
    if case.sampler == "ddim":
        return {"eta": case.eta, "variance_noise": NOISE[index][None] if case.eta > 0 else None}
    return {}


def run(case: Case) -> dict:
    scheduler = build(case)
    scheduler.set_timesteps(case.steps)
    state = START[None] * scheduler.init_noise_sigma  # DDPM looks at the second dimension
    trajectory = [state]
    original = scheduling_ddpm.randn_tensor
    try:
        for index, t in enumerate(scheduler.timesteps):
            scheduling_ddpm.randn_tensor = lambda *_args, index=index, **_options: NOISE[index][None]
            model_input = scheduler.scale_model_input(state, t)
            output = torch.tanh(0.3 * model_input + t / 1000)
            state = scheduler.step(output, t, state, **step_options(case, index)).prev_sample
            trajectory.append(state)
    finally:
        scheduling_ddpm.randn_tensor = original
    values = {
        "timesteps": scheduler.timesteps,
        "init_noise_sigma": torch.as_tensor(scheduler.init_noise_sigma, dtype=torch.float32),
        "trajectory": torch.cat(trajectory).float(),
    }
    if case.sampler in ("euler", "dpmpp"):
        values["sigmas"] = scheduler.sigmas.float()
    return {f"{case.name}.{key}": value for key, value in values.items()}


def noising(beta_schedule: str) -> dict:
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule=beta_schedule, **BETAS[beta_schedule])
    timesteps = torch.tensor([0, 1, 500, 999])
    clean, noise = START.repeat(4, 1), NOISE[:4]
    values = {
        "alphas_cumprod": scheduler.alphas_cumprod,
        "noising_timesteps": timesteps,
        "add_noise": scheduler.add_noise(clean, noise, timesteps),
        "get_velocity": scheduler.get_velocity(clean, noise, timesteps),
    }
    return {f"{beta_schedule}.{key}": value for key, value in values.items()}


def main() -> None:
    folder = target_folder("schedulers", __doc__)
    tensors = {"start": START, "noise": NOISE}
    for beta_schedule in BETAS:
        tensors |= noising(beta_schedule)
    listed = cases()
    for case in listed:
        tensors |= run(case)
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    assert not bad, bad
    write_tensors(folder / "values.safetensors", tensors)
    write_json(
        folder / "cases.json",
        {
            "betas": BETAS,
            "steps_offset": STEPS_OFFSET,
            "cases": [{"name": case.name} | asdict(case) for case in listed],
        },
    )
    write_made_by(folder, "schedulers.py", ["torch", "diffusers"], {
        "add_noise, get_velocity": "rows are start with noise[0..4] at noising_timesteps",
        "float32": "diffusers computes betas and their products in float32; with squaredcos_cap_v2 that rounding is "
        "visible near t = 999",
    })  # fmt: skip


if __name__ == "__main__":
    main()
