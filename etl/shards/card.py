"""The README.md of an export, a dataset card: what it is, how it was made, how to read it, what to fill in."""

from typing import Any

import yaml

_COLUMNS = {
    "input_ids": "token ids",
    "indices": "[start, end] of every piece; pieces tile the sequence, and attention stays inside them",
    "length": "tokens of the sequence",
    "domain": "where its documents come from",
    "mask": "1 where a token is a target of the loss",
    "tokens": "token ids, as bytes of int64",
}

_READ = {
    "parquet": """
```python
from datasets import load_dataset
rows = load_dataset("FOLDER", split="train").with_format("numpy", dtype="uint32")
```
""",
    "arrow": """
```python
from datasets import load_from_disk  # memory-mapped; nothing is copied
rows = load_from_disk("FOLDER")
```
""",
    "mds": """
```python
from streaming import StreamingDataset
rows = StreamingDataset(local="FOLDER", batch_size=1, shuffle=False)
```
""",
    "megatron": """
Give each prefix to `--data-path` and train with a sequence length of {length} tokens: every sample is then one row.
Boundaries (row, start, end of every piece) are in `*.boundaries.npy`; `*_label.bin`, where there is one, holds the
labels of a loss mask (-100: no target).
""",
}


def card(manifest: dict[str, Any]) -> str:
    """The card of an export as Markdown."""
    head = yaml.safe_dump(_head(manifest), sort_keys=False, allow_unicode=True).rstrip()
    counts = f"{manifest['rows']:,} sequences of {manifest['sequence_length_tokens']:,} tokens"
    columns = "\n".join(f"- `{name}`: {_COLUMNS[name]}" for name in _columns(manifest))
    made = yaml.safe_dump(manifest["made_by"], sort_keys=False, allow_unicode=True).rstrip()
    read = _READ[manifest["format"]].format(length=f"{manifest['sequence_length_tokens']:,}").strip()
    return f"""---
# Fill in before you publish: license, language, pretty_name.
license: unknown
{head}
---

# Long-context training data

{counts}, {manifest["tokens"]:,} tokens in all, for one tokenizer (`tokenizer.json`, sha256
`{manifest["tokenizer_sha256"]}`, {manifest["vocab_size"]:,} entries).

{columns}

## Read it

{read}

`nextlong verify FOLDER` compares every file with its checksum; `nextlong trace FOLDER ROW` says from which documents a
sequence was made (`provenance/`).

## How it was made

```yaml
{made}
```

{account_markdown(manifest["account"])}

## Licence and sources

State here where the documents come from and under which licences.
"""


def _columns(manifest: dict[str, Any]) -> list[str]:
    if manifest["format"] == "megatron":
        return []
    if manifest["options"].get("columns") == "llm-foundry":
        return ["tokens"]
    return ["input_ids", "indices", "length", "domain", *(["mask"] if manifest["has_mask"] else [])]


def _head(manifest: dict[str, Any]) -> dict[str, Any]:
    head: dict[str, Any] = {"tags": ["long-context", "packed"], "task_categories": ["text-generation"]}
    if manifest["format"] != "parquet":
        return head
    features = [
        {"name": "input_ids", "list": "uint32"},
        {"name": "indices", "list": {"list": "uint32", "length": 2}},
        {"name": "length", "dtype": "int32"},
        {"name": "domain", "dtype": "string"},
    ]
    if manifest["has_mask"]:
        features.append({"name": "mask", "list": "uint8"})
    size = 4 * manifest["tokens"]
    return head | {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        "dataset_info": {
            "features": features,
            "splits": [{"name": "train", "num_bytes": size, "num_examples": manifest["rows"]}],
            "dataset_size": size,
        },
    }


def account_table(account: dict[str, Any]) -> str:
    """read = kept + dropped by reason, for a terminal."""
    lines = [f"{'unit':<12}{'read':>16}{'kept':>16}  dropped"]
    for unit, count in account.items():
        if unit != "notes":
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in count["dropped"].items())
            lines.append(f"{unit:<12}{count['read']:>16,}{count['kept']:>16,}  {reasons or '-'}")
    lines += [f"{name.replace('_', ' ')}: {number:,}" for name, number in account.get("notes", {}).items()]
    return "\n".join(lines)


def account_markdown(account: dict[str, Any]) -> str:
    """The same as a Markdown table."""
    lines = ["| unit | read | kept | dropped |", "|---|---|---|---|"]
    for unit, count in account.items():
        if unit != "notes":
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in count["dropped"].items())
            lines.append(f"| {unit} | {count['read']:,} | {count['kept']:,} | {reasons or '-'} |")
    lines += [f"\n{name.replace('_', ' ')}: {number:,}" for name, number in account.get("notes", {}).items()]
    return "\n".join(lines)
