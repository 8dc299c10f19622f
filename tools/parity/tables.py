"""Parquet files as pyarrow and datasets write them, beside the same rows as JSON lines.

Writes tables/:
  rows.jsonl                         preference rows with nested columns
  <codec>.parquet                    the same rows under each codec, in row groups of two, dictionaries on and off, both page versions
  hub/data/train-0000N-of-00002.parquet, hub/data/test-00000-of-00001.parquet
                                     the same rows in shards, as `Dataset.push_to_hub` lays them out
  binary.parquet                     strings written as bytes without an encoding, beside bytes that are no text
"""

from __future__ import annotations

from common import target_folder, write_jsonl, write_made_by

import pyarrow as pa
import pyarrow.parquet as pq


def turns(*texts: str) -> list:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, texts)]


ROWS = [
    {"prompt": "Name a colour.", "chosen": turns("Name a colour.", "Blue."), "rejected": turns("Name a colour.", "A chair."), "score_chosen": 8.5, "score_rejected": 3.0, "tags": ["a", "b"], "weight": 1},
    {"prompt": "Is it warm?", "chosen": turns("Is it warm?", "é 😀 “yes”"), "rejected": turns("Is it warm?", ""), "score_chosen": 7.0, "score_rejected": None, "tags": [], "weight": 2},
    {"prompt": "", "chosen": turns("", "x" * 300), "rejected": turns("", "y"), "score_chosen": -1.25, "score_rejected": 0.5, "tags": None, "weight": None},
    {"prompt": "Hello", "chosen": turns("Hello", "Hi.", "Count.", "one two"), "rejected": turns("Hello", "Hi.", "Count.", "two"), "score_chosen": 1e-3, "score_rejected": 0.0, "tags": ["c"], "weight": 4},
    {"prompt": "Last", "chosen": turns("Last", "one"), "rejected": turns("Last", "none"), "score_chosen": 3.0, "score_rejected": 2.0, "tags": [None, "d"], "weight": 5},
]  # fmt: skip
CODECS = ["none", "snappy", "gzip", "zstd", "lz4"]
MESSAGES = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
SCHEMA = pa.schema(
    [
        ("prompt", pa.string()), ("chosen", MESSAGES), ("rejected", MESSAGES), ("score_chosen", pa.float64()), ("score_rejected", pa.float64()),
        ("tags", pa.list_(pa.string())), ("weight", pa.int32()),
    ]
)  # fmt: skip


def main() -> None:
    folder = target_folder("tables", __doc__)
    write_jsonl(folder / "rows.jsonl", ROWS)
    table = pa.Table.from_pylist(ROWS, schema=SCHEMA)
    for index, codec in enumerate(CODECS):
        version = "2.0" if index % 2 else "1.0"
        pq.write_table(
            table, folder / f"{codec}.parquet", compression=codec, row_group_size=2, use_dictionary=index % 3 != 0, data_page_version=version
        )
    hub = folder / "hub" / "data"
    hub.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.slice(0, 3), hub / "train-00000-of-00002.parquet")
    pq.write_table(table.slice(3), hub / "train-00001-of-00002.parquet")
    pq.write_table(table.slice(0, 1), hub / "test-00000-of-00001.parquet")
    text = {name: [row[name].encode() for row in ({"prompt": "Say", "chosen": " yes", "rejected": " no"},) * 2] for name in ("prompt", "chosen", "rejected")}
    pq.write_table(pa.table(text | {"blob": [b"\xff\xd8\xff", b"\x00\x80"]}), folder / "binary.parquet")
    write_made_by(folder, "tables.py", ["pyarrow"])


if __name__ == "__main__":
    main()
