"""Image preferences as they are published: Parquet by pyarrow and by `datasets`, JSON beside image files.

Writes images/:
  pick_a_pic.parquet                 ten comparisons in the columns of pickapic_v2, bytes as they are, in row groups of three, small pages
  hub/data/train-0000N-of-00002.parquet
                                     the same rows with images as the `Image` feature of `datasets` stores them, in two shards
  pick_a_pic.jsonl, jpg/             the first three of them as paths
  pairs.parquet                      two columns of that feature, chosen and rejected; the image of its last row lies in jpg/
  corrupt.parquet                    pick_a_pic.parquet, but the second image of row 3 ends early and the first of row 5 is no image
  hpd/train.json, hpd/train/         choices of HPD v2
  hpd/test.json, hpd/test/           rankings of HPD v2
  expected.json                      for every file its pairs: row, prompt, SHA-256 and size of both images, as pyarrow and PIL read them
"""

from __future__ import annotations

import hashlib
import io
import json
import random
from datetime import datetime
from pathlib import Path

from common import target_folder, write_jsonl, write_made_by

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image as ImageFeature, Value
from PIL import Image

SIZES = [(16, 16), (24, 16), (16, 24), (16, 16), (8, 8), (16, 16), (20, 12), (16, 16), (12, 20), (16, 16)]
# Labels of the two images, whether there are labels, whether the images differ.
LABELS = [(1, 0), (0, 1), (1, 0), (0.5, 0.5), (0, 1), (None, None), (0, 1), (1, 0), (0, 1), (1, 0)]
UNLABELLED, NOT_DIFFERENT = 5, 7


def picture(index: int, size: tuple) -> bytes:
    draw = random.Random(index)
    corners = [tuple(draw.randrange(256) for _ in range(3)) for _ in range(4)]
    small = Image.new("RGB", (2, 2))
    small.putdata(corners)
    stored = io.BytesIO()
    small.resize(size, Image.Resampling.BILINEAR).save(stored, "JPEG", quality=80, optimize=True)
    return stored.getvalue()


def comparisons() -> list:
    rows = []
    for index, (labels, size) in enumerate(zip(LABELS, SIZES)):
        # The second image of row 7 has another size than the first.
        sizes = (size, (16, 16) if index == 6 else size)
        rows.append(
            {
                "are_different": index != NOT_DIFFERENT, "best_image_uid": f"uid-{index}", "caption": f"a picture of {index // 2} things",
                "created_at": datetime(2023, 1, 1 + index), "has_label": index != UNLABELLED,
                "image_0_uid": f"a{index}", "image_0_url": "", "image_1_uid": f"b{index}", "image_1_url": "",
                "jpg_0": picture(2 * index, sizes[0]), "jpg_1": picture(2 * index + 1, sizes[1]),
                "label_0": labels[0], "label_1": labels[1], "model_0": ["xl", "base"][index % 2], "model_1": "tuned",
                "ranking_id": index, "user_id": 7, "num_example_per_prompt": 2, "__index_level_0__": index,
            }
        )  # fmt: skip
    return rows


def schema() -> pa.Schema:
    text, number, flag = pa.string(), pa.int64(), pa.bool_()
    kinds = {"are_different": flag, "has_label": flag, "created_at": pa.timestamp("ns"), "jpg_0": pa.binary(), "jpg_1": pa.binary(),
             "label_0": pa.float64(), "label_1": pa.float64(), "ranking_id": number, "user_id": number,
             "num_example_per_prompt": number, "__index_level_0__": number}  # fmt: skip
    return pa.schema([(name, kinds.get(name, text)) for name in comparisons()[0]])


def write_comparisons(path: Path, rows: list) -> None:
    table = pa.Table.from_pylist(rows, schema=schema())
    # Pages of one or two images, so that a reader must pass over pages.
    pq.write_table(table, path, row_group_size=3, compression="snappy", data_page_size=600, write_batch_size=1, use_dictionary=["model_0", "model_1"])


def seen(image: bytes) -> dict:
    return {"sha256": hashlib.sha256(image).hexdigest(), "size": list(Image.open(io.BytesIO(image)).size)}


def pair(row: int, prompt: str, chosen: bytes, rejected: bytes) -> dict:
    return {"row": row, "prompt": prompt, "chosen": seen(chosen), "rejected": seen(rejected)}


def expected_comparisons(path: Path) -> list:
    pairs = []
    for index, row in enumerate(pq.read_table(path).to_pylist()):
        labels = (row["label_0"], row["label_1"])
        if row["has_label"] and row["are_different"] and labels[0] != labels[1]:
            order = ("jpg_0", "jpg_1") if labels[0] > labels[1] else ("jpg_1", "jpg_0")
            pairs.append(pair(index + 1, row["caption"], *(row[name] for name in order)))
    return pairs


def write_hub(folder: Path, rows: list) -> None:
    data = folder / "hub" / "data"
    data.mkdir(parents=True, exist_ok=True)
    stored = lambda row, side: {"bytes": row[side], "path": f"{row['ranking_id']}_{side}.jpg"}
    images = [{**row, **{side: stored(row, side) for side in ("jpg_0", "jpg_1")}} for row in rows]
    features = Features(
        {
            name: ImageFeature() if name.startswith("jpg") else Value({"bool": "bool", "double": "float64", "int64": "int64"}.get(str(kind), "string"))
            for name, kind in zip(schema().names, schema().types)
        }
    )
    for image in images:
        image["created_at"] = str(image["created_at"])
    for shard, part in enumerate((images[:4], images[4:])):
        Dataset.from_list(part, features=features).to_parquet(data / f"train-{shard:05}-of-00002.parquet", batch_size=3)


def write_pairs(folder: Path, rows: list) -> list:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    embedded = [{"prompt": row["caption"], "chosen": {"bytes": row["jpg_0"], "path": None}, "rejected": {"bytes": row["jpg_1"], "path": "there.jpg"}} for row in rows[:2]]
    beside = {"prompt": "beside", "chosen": {"bytes": None, "path": "jpg/2_0.jpg"}, "rejected": {"bytes": rows[2]["jpg_1"], "path": ""}}
    table = pa.Table.from_pylist([*embedded, beside], schema=pa.schema([("prompt", pa.string()), ("chosen", image), ("rejected", image)]))
    pq.write_table(table, folder / "pairs.parquet")
    found = [pair(index + 1, row["caption"], row["jpg_0"], row["jpg_1"]) for index, row in enumerate(rows[:2])]
    return [*found, pair(3, "beside", rows[2]["jpg_0"], rows[2]["jpg_1"])]


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_hpd(folder: Path) -> dict:
    images = {split: [picture(100 * (split == "test") + index, (16, 16)) for index in range(4)] for split in ("train", "test")}
    for split, stored in images.items():
        (folder / "hpd" / split).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(stored):
            (folder / "hpd" / split / f"{index:05}.jpg").write_bytes(image)
    names = [f"{index:05}.jpg" for index in range(4)]
    choices = [
        {"human_preference": [1, 0], "prompt": "one", "file_path": names[:2], "user_hash": "u"},
        {"human_preference": [0, 1], "prompt": "two", "file_path": names[2:], "user_hash": "u"},
    ]
    ranking = [{"prompt": "three", "image_path": names, "rank": [2, 1, 4, 2], "raw_annotations": [{"rank": [2, 1, 4, 3], "user_hash": "u"}]}]
    write_json(folder / "hpd" / "train.json", choices)
    write_json(folder / "hpd" / "test.json", ranking)
    train, test = images["train"], images["test"]
    return {
        "hpd/train.json": [pair(1, "one", train[0], train[1]), pair(2, "two", train[3], train[2])],
        "hpd/test.json": [pair(1, "three", test[1], test[2])],
    }


def main() -> None:
    folder = target_folder("images", __doc__)
    rows = comparisons()
    write_comparisons(folder / "pick_a_pic.parquet", rows)
    write_hub(folder, rows)
    (folder / "jpg").mkdir(exist_ok=True)
    lines = []
    for index, row in enumerate(rows[:3]):
        paths = {f"jpg_{side}": f"jpg/{index}_{side}.jpg" for side in (0, 1)}
        for side in (0, 1):
            (folder / paths[f"jpg_{side}"]).write_bytes(row[f"jpg_{side}"])
        lines.append({name: row[name] for name in ("caption", "label_0", "label_1", "model_0")} | paths)
    write_jsonl(folder / "pick_a_pic.jsonl", lines)
    corrupt = [dict(row) for row in rows]
    corrupt[2]["jpg_1"] = rows[2]["jpg_1"][:-80]
    corrupt[4]["jpg_0"] = b"no image but words"
    write_comparisons(folder / "corrupt.parquet", corrupt)
    pairs = expected_comparisons(folder / "pick_a_pic.parquet")
    expected = {"pick_a_pic.parquet": pairs, "hub": pairs, "pick_a_pic.jsonl": pairs[:3], "pairs.parquet": write_pairs(folder, rows), **write_hpd(folder)}
    write_json(folder / "expected.json", expected)
    write_made_by(folder, "images.py", ["pyarrow", "datasets", "pillow"])


if __name__ == "__main__":
    main()
