"""What every parity script shares: a quiet, offline, deterministic torch and the ways fixtures are written.

Import this module before torch, transformers or diffusers: it sets the environment they read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    TRL_EXPERIMENTAL_SILENCE="1",
    TRANSFORMERS_VERBOSITY="error",
    DIFFUSERS_VERBOSITY="error",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    CUDA_VISIBLE_DEVICES="",
)
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


@dataclass
class Size:
    """Of a batch: its rows, the span of log-ratios in nats, the longest completion, and rows at exact extremes."""

    rows: int
    span: float = 8.0
    longest: int = 39
    extremes: bool = True


def target_folder(name: str, description: str) -> Path:
    """The fixture folder a script writes, from its `--out` (the parent of all fixture folders)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIXTURES, help="parent of the fixture folders")
    folder = parser.parse_args().out / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_tensors(path: Path, tensors: dict) -> None:
    """One safetensors file; integers stay integers, floats keep the dtype they were computed in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path, {"format": "pt"})


def read_tensors(path: Path) -> dict:
    return load_file(path)


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_made_by(folder: Path, script: str, packages: list[str], notes: dict | None = None) -> None:
    """`made_by.json`: which command and which versions made the folder, and what a reader must know."""
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    write_json(
        folder / "made_by.json",
        {
            "command": f"python tools/parity/{script}",
            "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
            "notes": notes or {},
        },
    )


def shuffle_parameters(model, seed: int, spread: float = 0.1) -> None:
    """Adds noise to every parameter, so that no norm is 1, no bias 0 and no zero-initialised layer dead."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
