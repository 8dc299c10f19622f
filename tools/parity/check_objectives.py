"""Compares `votive methods eval` with trl and with papers' formulas on random batches: other sizes, lengths and magnitudes than
the fixtures'.

Runs no fixture: every row of the CASES of `objectives.py` and `objectives_papers.py` is drawn anew, several times, evaluated by
trl (or by the row's formula) and by the program, and losses, rewards and gradients are compared. Errors are absolute below 1 and
relative above. A method that the program lists and that has no row is a failure. Nothing is written.

    python tools/parity/check_objectives.py --votive target/release/votive [--draws 6] [--seed 1] [ID ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from common import Size, read_tensors, torch, write_tensors

import objectives
import objectives_papers

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


def fitting(draw, size: Size) -> Size:
    """A size that means something to these inputs."""
    if draw is objectives_papers.list_inputs:
        return Size(size.rows, size.span, min(max(size.longest, 2), 24), size.extremes)
    # Tokens have a span each, and a completion sums it up: to no more than the extremes.
    if draw is objectives.token_inputs or draw.__module__ == "objectives_papers":
        longest = min(size.longest, 64)
        return Size(size.rows, min(size.span, 4.0, 100 / longest), longest, size.extremes)
    return size


def expected(case, inputs: dict) -> tuple[dict, dict]:
    """What a case reads of the inputs, and what it gives."""
    if isinstance(case, objectives.Case):
        outputs = objectives.evaluate(case, inputs)
    else:
        outputs = objectives_papers.evaluate(case, inputs)
        inputs = {name: inputs[name] for name in case.inputs}
    return inputs, {name: tensor for name, tensor in outputs.items() if name not in inputs}


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


def without_row(votive: Path, cases: list) -> list[str]:
    """The methods that the program has and that nothing here is compared with."""
    listed = json.loads(subprocess.run([str(votive), "methods", "--json"], check=True, capture_output=True).stdout)
    return sorted({method["id"] for method in listed} - {case.objective for case in cases})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=len(SIZES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("ids", nargs="*")
    args = parser.parse_args()
    cases = [*objectives.CASES, *objectives_papers.CASES]
    lacking = without_row(args.votive, cases)
    worst = defaultdict(lambda: (0.0, "", 0))
    for case in cases:
        if args.ids and case.objective not in args.ids:
            continue
        for number, size in enumerate(SIZES[: args.draws]):
            size = fitting(case.draw, size)
            inputs, outputs = expected(case, case.draw(1000 * args.seed + number, size))
            with tempfile.TemporaryDirectory() as folder:
                found = evaluate(args.votive, case, inputs, Path(folder))
            key = (case.objective, getattr(case, "source", "formula of the paper"))
            for name, tensor in outputs.items():
                off = error(found[name], tensor.detach())
                most, where, count = worst[key]
                place = f"{case.name}, {name}, {size.rows} rows, span {size.span}"
                worst[key] = (max(most, off), place if off > most else where, count + tensor.numel())
    failed = [key for key, (most, _, _) in worst.items() if not most <= TOLERANCE]
    for (objective, source), (most, where, count) in sorted(worst.items()):
        print(f"{objective:20} {source:28} {count:7} numbers, worst {most:.1e}  {where}")
    methods, numbers = len({objective for objective, _ in worst}), sum(count for _, _, count in worst.values())
    print(f"{methods} methods, {len(worst)} rows, {numbers} numbers, {len(failed)} rows beyond {TOLERANCE}")
    if lacking:
        print(f"no row compares {', '.join(lacking)}")
    sys.exit(1 if failed or lacking else 0)


if __name__ == "__main__":
    main()
