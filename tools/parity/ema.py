"""Moving averages of weights by diffusers' `EMAModel`: decays of many steps, and the averages of weights that move.

Writes ema/cases.json: for each case `settings` (as EMAModel names them), `long_decays` (pairs of an optimization step and
its decay), `weights` (those of the start, then those after each step) and `averages` after each step, in float64.
"""

from __future__ import annotations

from common import target_folder, torch, write_json, write_made_by

from diffusers.training_utils import EMAModel

CASES = [
    dict(decay=0.9999, min_decay=0.0, update_after_step=0, use_ema_warmup=False, inv_gamma=1.0, power=2 / 3),
    dict(decay=0.5, min_decay=0.0, update_after_step=2, use_ema_warmup=False, inv_gamma=1.0, power=2 / 3),
    dict(decay=0.9999, min_decay=0.0, update_after_step=0, use_ema_warmup=True, inv_gamma=1.0, power=2 / 3),
    dict(decay=0.99, min_decay=0.3, update_after_step=1, use_ema_warmup=True, inv_gamma=4.0, power=0.75),
    dict(decay=0.999, min_decay=0.9, update_after_step=0, use_ema_warmup=False, inv_gamma=1.0, power=1.0),
]
STEPS = [1, 2, 3, 4, 5, 10, 50, 100, 1000, 31600, 1000000]


def main() -> None:
    folder = target_folder("ema", __doc__)
    cases = []
    for number, settings in enumerate(CASES):
        generator = torch.Generator().manual_seed(number)
        parameter = torch.nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))
        ema = EMAModel([parameter], **settings)
        weights, averages = [parameter.tolist()], []
        for _ in range(6):
            with torch.no_grad():
                parameter.add_(torch.randn(3, generator=generator, dtype=torch.float64))
            ema.step([parameter])
            weights.append(parameter.tolist())
            averages.append(ema.shadow_params[0].tolist())
        decays = [[step, ema.get_decay(step)] for step in STEPS]
        cases.append({"settings": settings, "long_decays": decays, "weights": weights, "averages": averages})
    write_json(folder / "cases.json", cases)
    write_made_by(folder, "ema.py", ["torch", "diffusers"])


if __name__ == "__main__":
    main()
