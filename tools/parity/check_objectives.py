"""Compares `votive methods eval` with trl on random batches: other sizes, lengths and magnitudes than the fixtures'.

Runs no fixture: every row of `objectives.CASES` is drawn anew, several times, evaluated by trl (or by the row's formula) and by
the program, and losses, rewards and gradients are compared. Errors are absolute below 1 and relative above. Nothing is written.

    python tools/parity/check_objectives.py --votive target/release/votive [--draws 6] [--seed 1] [ID ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from common import read_tensors, torch, write_tensors

import objectives
from objectives import CASES, Size

# Rows, span of log-ratios in nats (of a token, where there are tokens), longest completion, rows at exact extremes.
SIZES = [
    Size(1, 1.0, 3, False),
    Size(2, 30.0, 1, False),
    Size(7, 0.01, 300, False),
    Size(16, 8.0, 64, True),
    Size(33, 3.0, 2000, False),
    Size(64, 100.0, 20, True),
]
TOLERANCE = 1e-6


def settings(name: str, value) -> list[str]:
    """An option as `--set` takes it."""
    if isinstance(value, dict):
        return [line for below, inner in value.items() for line in settings(f"{name}.{below}", inner)]
    spelled = str(value).lower() if isinstance(value, bool) else str(value)
    return [f"{name}={spelled}"]


def draw(case, seed: int, size: Size) -> dict | None:
    """Inputs of another size; none if the row has one size alone (pairs of latents)."""
    if case.draw is objectives.denoised_inputs:
        return None
    # Tokens have a span each, and a completion sums it up.
    if case.draw is objectives.token_inputs:
        size = Size(size.rows, min(size.span, 4.0), min(size.longest, 64), size.extremes)
    return case.draw(seed, size)


def evaluate(votive: Path, case, inputs: dict, folder: Path) -> dict:
    given, found = folder / "inputs.safetensors", folder / "out.safetensors"
    write_tensors(given, inputs)
    command = [str(votive), "methods", "eval", case.objective, "--inputs", str(given), "--out", str(found)]
    for name, value in case.options.items():
        command += [part for line in settings(name, value) for part in ("--set", line)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return read_tensors(found)


def error(found, expected) -> float:
    """The largest error; a number that is not finite on both sides alike is none."""
    same = (found == expected) | (found.isnan() & expected.isnan())
    difference = (found - expected).abs() / expected.abs().clamp(min=1)
    return torch.where(same, torch.zeros_like(difference), difference).max().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=len(SIZES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("ids", nargs="*")
    args = parser.parse_args()
    worst = defaultdict(lambda: (0.0, "", 0))
    for case in CASES:
        if args.ids and case.objective not in args.ids:
            continue
        for number, size in enumerate(SIZES[: args.draws]):
            inputs = draw(case, 1000 * args.seed + number, size)
            if inputs is None:
                continue
            expected = objectives.evaluate(case, inputs)
            with tempfile.TemporaryDirectory() as folder:
                found = evaluate(args.votive, case, inputs, Path(folder))
            for name in expected.keys() - inputs.keys():
                off = error(found[name], expected[name].detach())
                key = (case.objective, case.source)
                most, where, count = worst[key]
                place = f"{case.name}, {name}, {size.rows} rows, span {size.span}"
                worst[key] = (max(most, off), place if off > most else where, count + expected[name].numel())
    failed = [key for key, (most, _, _) in worst.items() if not most <= TOLERANCE]
    for (objective, source), (most, where, count) in sorted(worst.items()):
        print(f"{objective:20} {source:28} {count:7} numbers, worst {most:.1e}  {where}")
    print(f"{len(worst)} rows, {len(failed)} beyond {TOLERANCE}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
