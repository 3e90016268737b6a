"""Read Megatron's .bin and .idx with megatron-core: read_megatron PREFIX ROWS.npz [options]."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split

from tests.readers.scripts.rows_file import save


class Tokenizer:
    """What a GPTDataset asks of one: an end of document that no row has."""

    vocab_size = 1 << 31
    eod = (1 << 31) - 1
    unique_identifiers: dict[str, Any] = {}  # noqa: RUF012


def sequences(prefix: str) -> Iterator[dict[str, Any]]:
    """The sequences as they lie in the file, each with the number of its document."""
    dataset = IndexedDataset(prefix)
    for document, (start, stop) in enumerate(zip(dataset.document_indices, dataset.document_indices[1:], strict=False)):
        for number in range(start, stop):
            yield {"input_ids": dataset[number].copy(), "document": document}  # else of a file that is unmapped with it


def samples(prefix: str, length: int, cache: str) -> Iterator[dict[str, Any]]:
    """One epoch of samples as a trainer gets them."""
    config = GPTDatasetConfig(
        random_seed=0,
        sequence_length=length,
        blend=([prefix], None),
        split="1",
        path_to_cache=cache,
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    stored = IndexedDataset(prefix)
    dataset = GPTDataset(stored, prefix, np.arange(len(stored), dtype=np.int32), None, Split.train, config)
    for number in range(len(dataset)):
        sample = dataset[number]
        yield {name: sample[name].numpy() for name in ("tokens", "labels", "loss_mask")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--sequence-length", type=int, help="read samples of a GPTDataset instead of the sequences")
    parser.add_argument("--cache", help="folder for the GPTDataset's order of samples")
    options = parser.parse_args()
    length = options.sequence_length
    save(options.rows, samples(options.prefix, length, options.cache) if length else sequences(options.prefix))


if __name__ == "__main__":
    main()
