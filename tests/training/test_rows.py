"""Which rows a step has, and what of them is a target: functions of the step alone."""

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest

from etl.shards.of_work import WorkSource
from etl.work import Work
from nextlong.errors import UserError
from nextlong.packed_folder import Folder
from nextlong.shards.arrow import Arrow
from tests.etl.shards.conftest import work  # noqa: F401 - a fixture
from tests.training.conftest import LENGTH
from training.boundaries import IGNORED, Batch, collate
from training.config import Data, rows_per_step
from training.data import Batches, Rows

Packed = Callable[[str], str]


def _batches(rows: Rows, *, rank: int = 0, size: int = 1, per_micro: int = 1, threads: int = 1) -> Batches:
    return Batches(
        rows, rows_per_step=12, rows_per_micro_step=per_micro, rank=rank, size=size, multiple=1, threads=threads
    )


def test_proportions_are_exact_at_every_row(packed: Packed) -> None:
    shares = [Fraction(3, 5), Fraction(7, 20), Fraction(1, 20)]
    rows = Rows(Data(folders=[packed("arrow"), packed("masked"), packed("mds")], proportions=[0.6, 0.35, 0.05]))
    counts = [0, 0, 0]
    for number in range(2000):
        counts[rows.place(number)[0]] += 1
        for share, count in zip(shares, counts, strict=True):
            assert floor(share * (number + 1)) <= count <= ceil(share * (number + 1))


def test_no_row_comes_twice_in_a_pass_and_passes_differ(packed: Packed) -> None:
    rows = Rows(Data(folders=[packed("arrow"), packed("masked")]))
    seen: dict[int, list[int]] = {0: [], 1: []}
    for number in range(3 * len(rows)):
        folder, row = rows.place(number)
        seen[folder].append(row)
    for folder, found in seen.items():
        size = len(rows.folders[folder])
        assert size > 5
        passes = [found[start : start + size] for start in range(0, len(found), size)]
        assert [sorted(each) for each in passes] == [list(range(size))] * 3
        assert passes[0] != passes[1] != passes[2]
        assert passes[0] != sorted(passes[0])


def test_far_rows_are_those_that_counting_finds(packed: Packed) -> None:
    data = Data(folders=[packed("arrow"), packed("masked")], proportions=[0.37, 0.63], seed=3)
    near, far = Rows(data), Rows(data)
    expected = [near.place(number) for number in range(70_000)]
    assert far.place(69_999) == expected[-1]
    assert [far.place(number) for number in range(65_500, 65_600)] == expected[65_500:65_600]


@pytest.mark.parametrize("name", ["parquet", "mds"])
def test_formats_give_the_same_rows(name: str, packed: Packed) -> None:
    arrow, other = (Rows(Data(folders=[packed(each)])) for each in ("arrow", name))
    assert len(arrow) == len(other) > 20
    for number in range(20):
        one, another = arrow.read(number), other.read(number)
        assert (one.input_ids == another.input_ids).all()
        assert one.pieces(0).tolist() == another.pieces(0).tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("per_micro", [1, 2])
def test_a_step_has_the_same_rows_on_any_ranks(size: int, per_micro: int, packed: Packed) -> None:
    rows = Rows(Data(folders=[packed("arrow"), packed("masked")]))
    for step in (0, 5):
        dealt = [_batches(rows, rank=rank, size=size, per_micro=per_micro).numbers(step) for rank in range(size)]
        assert {len(micro) for own in dealt for micro in own} == {per_micro}
        assert {len(own) for own in dealt} == {12 // size // per_micro}
        numbers = [number for own in dealt for micro in own for number in micro]
        assert sorted(numbers) == list(range(12 * step, 12 * step + 12))


def _same(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True) if a is not None)


def test_the_order_is_the_same_under_any_number_of_threads(packed: Packed) -> None:
    found = []
    for threads in (1, 8):
        rows = Rows(Data(folders=[packed("parquet"), packed("masked")]))
        batches = _batches(rows, rank=1, size=2, threads=threads)
        found.append(list(batches.from_step(3, 9)))
    assert len(found[0]) == 6
    for one, other in zip(*found, strict=True):
        assert len(one) == len(other) == 6
        assert all(map(_same, one, other))
    again = _batches(Rows(Data(folders=[packed("parquet"), packed("masked")])), rank=1, size=2).step(5)
    assert all(map(_same, again, found[0][2]))


def test_only_masked_tokens_are_targets(packed: Packed) -> None:
    rows = Rows(Data(folders=[packed("masked")]))
    targets = 0
    for number in range(len(rows)):
        sequence = rows.read(number)
        assert sequence.mask is not None
        batch = _batch_of(rows, number)
        is_target = (batch.targets != IGNORED).numpy()
        starts = set(sequence.pieces(0)[:, 0].tolist())
        expected = [sequence.mask[0, t + 1] == 1 and t + 1 not in starts for t in range(LENGTH - 1)]
        assert is_target[:-1].tolist() == expected
        assert not is_target[-1]
        assert (batch.targets.numpy()[:-1] == sequence.input_ids[0, 1:])[is_target[:-1]].all()
        targets += batch.num_targets
    assert 0 < targets < 0.5 * len(rows) * LENGTH


def _batch_of(rows: Rows, number: int) -> Batch:
    sequence, weights = rows.read(number), rows.weights(number)
    return collate(sequence.input_ids, [sequence.pieces(0)], sequence.mask, None if weights is None else weights[None])


def test_targets_positions_and_padding_by_hand() -> None:
    rows = np.array([[5, 6, 7, 8, 9], [1, 2, 3, 4, 5]], np.uint32)
    pieces = [np.array([[0, 2], [2, 5]]), np.array([[0, 5]])]
    mask = np.array([[1, 1, 1, 0, 1], [1, 1, 1, 1, 1]], np.uint8)
    weights = np.array([[9, 2, 9, 9, 4], [9, 6, 7, 8, 9]], np.float32)
    batch = collate(rows, pieces, mask, weights, multiple=4)
    no = IGNORED
    assert batch.input_ids.tolist() == [5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 0, 0]
    assert batch.targets.tolist() == [6, no, no, 9, no, 2, 3, 4, 5, no, no, no]
    assert batch.position_ids.tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 3, 4, 0, 1]
    assert batch.cu_seqlens.tolist() == [0, 2, 5, 10, 12]
    assert batch.max_seqlen == 5
    assert batch.weights is not None
    assert [batch.weights[place].item() for place in (0, 3, 5, 6, 7, 8)] == [2, 4, 6, 7, 8, 9]
    assert batch.num_targets == 6
    assert batch.total_weight == 36


def test_negative_segments_weigh_what_is_asked(work: Work, tmp_path: Path) -> None:  # noqa: F811
    from etl.engine import Engine
    from etl.shards.export import export

    export(WorkSource.open(work.path), str(tmp_path / "out"), "arrow", Arrow(), Engine())
    data = {"folders": [str(tmp_path / "out")]}
    rows, plain = Rows(Data(**data, negative_weight=0.25)), Rows(Data(**data))
    folder = Folder.open(str(tmp_path / "out"))
    lighter: Counter[float] = Counter()
    for number in range(len(rows)):
        _, row = rows.place(number)
        spans = folder.segments(row, "negative")
        is_negative = np.zeros(rows.length_tokens, np.bool_)
        for start, end in spans:
            is_negative[start:end] = True
        batch = _batch_of(rows, number)
        assert batch.weights is not None
        assert batch.weights.tolist()[:-1] == np.where(is_negative, 0.25, 1.0)[1:].tolist()
        lighter.update(batch.weights.tolist())
        assert _batch_of(plain, number).weights is None
        assert batch.total_weight < batch.num_targets == _batch_of(plain, number).total_weight
    assert min(lighter[0.25], lighter[1.0]) > 100


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda rows: _batches(rows, size=5), "has 12 rows, which 5 data-parallel ranks with 1 rows a micro-step do n"),
        (lambda rows: _batches(rows, size=4, per_micro=4), "has 12 rows, which 4 data-parallel ranks with 4 rows a m"),
        (lambda rows: _batches(rows, size=24), "an optimizer step has 12 rows, which 24 data-parallel ranks"),
        (lambda rows: rows_per_step(1000, 96), r"batch.global_tokens is 1,000, which is no multiple of .*96. Take e.g"),
        (lambda rows: rows_per_step(48, 96), "batch.global_tokens is 48, which is no multiple"),
        (
            lambda rows: Batches(
                rows, rows_per_step=10**4, rows_per_micro_step=1, rank=0, size=1, multiple=1
            ),
            r"an optimizer step has 10,000 rows, 10,000 of them of .*arrow, which has \d+: one would come twice",
        ),
        (lambda rows: Data(folders=[]), "data.folders is empty"),
        (lambda rows: Data(folders=["a"], proportions=[1, 2]), "data.proportions has 2 numbers for 1 folders"),
        (lambda rows: Data(folders=["a"], negative_weight=-1), "data.negative_weight is -1, but it must be from 0"),
        (lambda rows: Rows(Data(folders=["nowhere"])), "nowhere is no packed folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_dealt_out_is_told(make: Callable[[Rows], object], sentence: str, packed: Packed) -> None:
    with pytest.raises(UserError, match=sentence):
        make(Rows(Data(folders=[packed("arrow")])))


def test_folders_of_several_kinds_are_told(
    packed: Packed, corpus_file: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    from tests.training.conftest import pack

    other = pack(tmp_path / "other", tokenizer_file, kind="text", path=corpus_file, length_tokens=128)
    with pytest.raises(UserError, match=r"other has sequences of 128 tokens, but .* sequences of 96 tokens"):
        Rows(Data(folders=[packed("arrow"), other]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty is no packed folder"):
        Rows(Data(folders=[str(tmp_path / "empty")]))
