"""TensorBoard's own bytes for four events, and a comparison of a run's event file with its log.

    python tools/parity/events.py                 # writes tests/fixtures/events/events.bin
    python tools/parity/events.py --check RUN     # reads a run directory with TensorBoard's EventAccumulator

The fixture holds a version, a text and two events of three scalars each, framed by `tensorboard`'s record writer, all at
the same wall time. The check fails if a number of the run's logs is missing, differs, or is there twice.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter

FIXTURE = Path(__file__).resolve().parents[2] / "tests/fixtures/events/events.bin"
WALL_TIME = 1_700_000_000.25
SCALARS = {"train/loss": 0.5, "train/rewards/margins": -1.25, "eval/loss": 3.0}


def text(tag: str, content: str) -> Summary:
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", tensor_shape=shape, string_val=[content.encode()])
    return Summary(value=[Summary.Value(tag=tag, metadata=plugin, tensor=tensor)])


def scalars() -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in SCALARS.items()])


def write_fixture():
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    events = [
        Event(wall_time=WALL_TIME, file_version="brain.Event:2"),
        Event(wall_time=WALL_TIME, summary=text("plan/text_summary", "    lr = 1e-6\n")),
        Event(wall_time=WALL_TIME, step=7, summary=scalars()),
        Event(wall_time=WALL_TIME, step=300, summary=scalars()),
    ]
    with FIXTURE.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
        writer.flush()


def tag_of(key: str) -> str:
    return f"eval/{key[5:]}" if key.startswith("eval_") else f"train/{key}"


def check(run: Path):
    found = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    expected: dict[str, list[tuple[int, float]]] = {}
    logs = [run / name for name in ("metrics.jsonl", "evaluations.jsonl")]
    for line in (line for log in logs if log.exists() for line in log.read_text().splitlines()):
        row = json.loads(line)
        for key, value in row.items():
            if key != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                expected.setdefault(tag_of(key), []).append((row["step"], value))
    assert set(found.Tags()["scalars"]) == set(expected), set(found.Tags()["scalars"]) ^ set(expected)
    for tag, points in expected.items():
        events = [(event.step, event.value) for event in found.Scalars(tag)]
        assert [step for step, _ in events] == [step for step, _ in points], tag
        for (step, value), (_, wanted) in zip(events, points, strict=True):
            as_single = struct.unpack("f", struct.pack("f", wanted))[0]
            assert value == as_single or math.isnan(wanted), (tag, step, value, wanted)
    [plan] = found.Tensors("plan/text_summary")
    shown = plan.tensor_proto.string_val[0].decode()
    assert shown == "".join(f"    {line}\n" for line in (run / "plan.toml").read_text().splitlines()), shown
    print(f"{run}: {len(expected)} scalars, {sum(map(len, expected.values()))} points, all as in its logs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=Path, metavar="RUN")
    arguments = parser.parse_args()
    check(arguments.check) if arguments.check else write_fixture()
