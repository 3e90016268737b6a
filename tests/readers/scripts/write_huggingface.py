"""Write rows as parquet or arrow with Hugging Face's datasets: write_huggingface ROWS.npz FOLDER parquet|arrow."""

import sys
from pathlib import Path

from datasets import Dataset, Features, List, Value

from tests.readers.scripts.rows_file import load

FEATURES = {
    "input_ids": List(Value("uint32")),
    "indices": List(List(Value("uint32"), length=2)),
    "length": Value("int32"),
    "domain": Value("string"),
    "mask": List(Value("uint8")),
}
CARD = """---
configs:
- config_name: default
  data_files: data/train-*.parquet
---
"""


def main() -> None:
    path, folder, how = sys.argv[1:]
    rows = load(Path(path))[0]
    features = Features({name: feature for name, feature in FEATURES.items() if name in rows[0]})
    columns = {name: [row[name].tolist() for row in rows] for name in features}
    dataset = Dataset.from_dict(columns, features=features)
    if how == "arrow":
        dataset.save_to_disk(folder, num_shards=2)
        return
    (Path(folder) / "data").mkdir(parents=True)
    for number in range(2):
        file = Path(folder) / "data" / f"train-{number:05d}-of-00002.parquet"
        dataset.shard(2, number).to_parquet(file)
    (Path(folder) / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: data/train-*.parquet\n---\n"
    )


if __name__ == "__main__":
    main()
