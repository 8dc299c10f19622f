"""Runs `votive bench` and its peers in turn, and prints a table of medians.

    python compare.py --models DIR --votive ../../target/release/votive [--rounds 3] [--only text-step …] > table.md

Every round runs every program once, each in a process of its own, so that a slow minute of the machine meets all of them.
The first step of a process is left out of its median. A figure is the median of the rounds, with the least and the
largest. All results go to stderr as JSON lines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEER = [sys.executable, str(HERE / "peer.py")]


def works(models: Path, votive: str):
    """(work, {program: command}), steps as `votive bench` and the peers count them: the first included."""
    bench = [votive, "--json", "--threads", "2", "bench"]
    llama, sd, pairs = str(models / "llama"), str(models / "sd"), str(models / "pairs.jsonl")
    given = ["--models", str(models)]
    for mode in ("full", "lora"):
        yield f"text-step, {mode}", {
            "votive": [*bench, "text-step", "--model", llama, "--data", pairs, "--mode", mode, "--steps", "4"],
            "plain PyTorch": [*PEER, "text-step", *given, "--mode", mode, "--steps", "4"],
            "TRL": [*PEER, "text-step", *given, "--mode", mode, "--steps", "3", "--trainer", "trl"],
        }
    for mode in ("full", "lora"):
        yield f"diffusion-step, {mode}", {
            "votive": [*bench, "diffusion-step", "--model", sd, "--mode", mode, "--steps", "4"],
            "diffusers": [*PEER, "diffusion-step", *given, "--mode", mode, "--steps", "4"],
        }
    yield "generate", {
        "votive": [*bench, "generate", "--model", llama, "--data", pairs, "--steps", "3"],
        "transformers": [*PEER, "generate", *given, "--steps", "3"],
    }
    yield "sample", {
        "votive": [*bench, "sample", "--model", sd, "--steps", "2"],
        "diffusers": [*PEER, "sample", *given, "--steps", "2"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--votive", default=str(HERE / "../../target/release/votive"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="works whose names start with one of these")
    args = parser.parse_args()
    chosen = [work for work in works(args.models, args.votive)
              if not args.only or work[0].startswith(tuple(args.only))]  # fmt: skip
    results: dict[tuple[str, str], list[dict]] = {}
    for round_ in range(args.rounds):
        for work, programs in chosen:
            # The other way round every second time: whoever comes first warms up the machine.
            for program, command in list(programs.items())[:: 1 if round_ % 2 == 0 else -1]:
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                if done.returncode != 0:
                    sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
                result = json.loads(done.stdout.strip().splitlines()[-1])
                results.setdefault((work, program), []).append(result)
                print(json.dumps({"work": work, "program": program, "round": round_, **result}), file=sys.stderr, flush=True)
    print("| work | program | wall s | CPU s | peak MiB | first step done after s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (work, program), rounds in results.items():
        figures = []
        for key in ("wall_s", "cpu_s", "peak_rss_mib", "first_step_done_s"):
            values = [statistics.median(r[key][1:]) if isinstance(r[key], list) else r[key] for r in rounds]
            digits = 0 if key == "peak_rss_mib" else 2
            figure = f"{statistics.median(values):.{digits}f}"
            figures.append(f"{figure} ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else figure)
        print(f"| {work} | {program} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
