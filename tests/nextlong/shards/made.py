"""Sequences to write, the writing of them in blocks, and what is read against what was written."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, ranges
from nextlong.shards import Format, open_shards
from tests.golden import rows as golden

DOMAINS = ["", "cells", "märkte", "表", "a" * 300]


def of_rows(rows: list[dict[str, Any]]) -> Sequences:
    """Golden rows as sequences."""
    return Sequences(
        np.stack([row["input_ids"] for row in rows]),
        np.concatenate([row["indices"] for row in rows]),
        np.cumsum([0, *(len(row["indices"]) for row in rows)]),
        [row["domain"] for row in rows],
        np.stack([row["mask"] for row in rows]) if "mask" in rows[0] else None,
    )


def golden_rows(*, has_mask: bool = False) -> Sequences:
    """The rows that the golden files hold."""
    return of_rows(golden.rows() if has_mask else golden.without_mask(golden.rows()))


def made(num_rows: int, length_tokens: int = 16, *, seed: int = 0, has_mask: bool = False) -> Sequences:
    """Sequences of random ids, pieces and labels; some of one piece, some of as many as there can be."""
    rng = np.random.default_rng(seed)
    pieces = []
    for row in range(num_rows):
        share = (0.0, 1.0, rng.random())[row % 3]
        cuts = np.flatnonzero(rng.random(length_tokens // 2 - 1) < share) * 2 + 2
        pieces.append(np.stack([[0, *cuts], [*cuts, length_tokens]], axis=1).astype(np.int64))
    return Sequences(
        rng.integers(golden.VOCAB_SIZE, size=(num_rows, length_tokens), dtype=np.uint32),
        np.concatenate(pieces),
        np.cumsum([0, *map(len, pieces)]),
        [DOMAINS[number] for number in rng.integers(len(DOMAINS), size=num_rows)],
        rng.integers(2, size=(num_rows, length_tokens), dtype=np.uint8) if has_mask else None,
    )


def blocks_of(sequences: Sequences, rows_each: int) -> Iterator[Sequences]:
    """Sequences in blocks."""
    for start, stop in ranges(len(sequences), rows_each):
        yield sequences.rows(start, stop)


def written(format_: Format, folder: Path, sequences: Sequences, *, rows_each: int = 3) -> list[str]:
    """Write sequences as an export does, in blocks; returns the names of the shards' files, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = Shapes.of(sequences)
    spans = format_.shards(shapes)
    shards = [
        format_.write(
            folder,
            number,
            len(spans),
            shapes.rows(start, stop),
            blocks_of(sequences.rows(start, stop), rows_each),
        )
        for number, (start, stop) in enumerate(spans)
    ]
    format_.finish(folder, shards)
    return [name for shard in shards for name in shard["files"]]


def files_of(folder: Path) -> dict[str, bytes]:
    """Content by name."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found
    return found


def assert_equal(found: Sequences, expected: Sequences, *, has_domains: bool = True) -> None:
    """Every array, its type, and every label."""
    assert len(found) == len(expected) > 0
    assert found.input_ids.dtype == np.uint32
    np.testing.assert_array_equal(found.input_ids, expected.input_ids)
    for name in ("indices", "offsets"):
        assert getattr(found, name).dtype == np.int64
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.domains == (expected.domains if has_domains else [""] * len(expected))
    assert (found.mask is None) == (expected.mask is None)
    if found.mask is not None:
        assert found.mask.dtype == np.uint8
        np.testing.assert_array_equal(found.mask, expected.mask)


def assert_read_back(
    format_: str, folder: Path, names: list[str], expected: Sequences, *, has_domains: bool = True
) -> None:
    """All at once, every single sequence, and every run of them, whichever shards it is of."""
    reader = open_shards(folder, format_, names)
    assert len(reader) == len(expected)
    for start in range(len(expected)):
        for stop in {start + 1, len(expected), (start + len(expected)) // 2 + 1}:
            assert_equal(reader.read(start, stop), expected.rows(start, stop), has_domains=has_domains)
    for start, stop in [(0, 0), (-1, 1), (0, len(expected) + 1), (len(expected), len(expected) + 1), (3, 2)]:
        with pytest.raises(UserError, match=f"{folder} has {len(expected)} sequences, so none are {start}"):
            reader.read(start, stop)


def assert_streamed(format_: Format, folder: Path, num_blocks: int = 8) -> None:
    """While a block is asked for, at most two that came before are still held."""
    sequences = made(2 * num_blocks, 4096, has_mask=True)
    alive: list[weakref.ref[Any]] = []
    most = 0

    def blocks() -> Iterator[Sequences]:
        nonlocal most
        for block in blocks_of(sequences, 2):
            most = max(most, sum(each() is not None for each in alive))
            ids = block.input_ids.copy()
            alive.append(weakref.ref(ids))
            yield Sequences(ids, block.indices, block.offsets, block.domains, block.mask)
            del ids

    shapes = Shapes.of(sequences)
    [(start, stop)] = format_.shards(shapes)
    assert (start, stop) == (0, len(sequences))
    format_.write(folder, 0, 1, shapes, blocks())
    assert len(alive) == num_blocks
    assert 1 <= most <= 2


def assert_damage_is_told(format_: str, folder: Path, names: list[str], damaged: str, step: int = 1) -> None:
    """A file cut at any byte, or with any byte another: what was written, other numbers, or a UserError."""
    content = (folder / damaged).read_bytes()
    outcomes = set()
    for place in range(0, len(content), step):
        for changed in (content[:place], content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]):
            (folder / damaged).write_bytes(changed)
            try:
                reader = open_shards(folder, format_, names)
                reader.read(0, len(reader)).check("", vocab_size=golden.VOCAB_SIZE)
                outcomes.add("read")
            except UserError:
                outcomes.add("told")
    (folder / damaged).write_bytes(content)
    assert "told" in outcomes
