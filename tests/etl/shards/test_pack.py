"""Packing documents of any length: every token once, in its place, and nothing dropped silently."""

from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.engine import Engine
from etl.shards.of_folder import PackedFolder
from etl.shards.verify import verify
from nextlong.errors import UserError
from nextlong.shards.mds import Mds
from nextlong.tokenizing import Tokenizer
from tests.etl.shards.conftest import LENGTH, Pack
from tests.etl.shards.test_export import _hashes

BOS, EOS, PAD = 5, 6, 7


def _ids(tokenizer_file: Path, texts: list[str]) -> list[list[int]]:
    ids, offsets = Tokenizer(tokenizer_file).encode(texts)
    return [ids[first:last].tolist() for first, last in pairwise(offsets.tolist())]


def _joined(parts: dict[int, list[int]]) -> list[int]:
    return list(chain.from_iterable(parts[first] for first in sorted(parts)))


def _rebuilt(folder: PackedFolder, *, bos: bool = False, eos: bool = False) -> dict[int, list[int]]:
    """Of every document the tokens that its segments hold, in order; special tokens and masks are checked."""
    found: dict[int, dict[int, list[int]]] = {}
    for row, told in enumerate(folder.provenance(0, len(folder)).to_pylist()):
        sequence = folder.read(row, row + 1)
        ids = sequence.input_ids[0].tolist()
        mask = [1] * len(ids) if sequence.mask is None else sequence.mask[0].tolist()
        padding = 0
        for place, each in enumerate(told["segments"]):
            span = slice(each["start"], each["end"])
            if each["role"] == "document":
                found.setdefault(each["doc_id"], {})[each["first_token"]] = ids[span]
                assert set(mask[span]) == {1}
            elif ids[span] == [BOS] and bos:
                assert mask[span] == [0]
                assert told["segments"][place + 1]["first_token"] == 0
            elif ids[span] == [EOS] and eos:
                assert mask[span] == [1]
            else:
                padding += 1
                assert set(ids[span]) == {PAD}
                assert set(mask[span]) == {0}
                assert each["end"] == LENGTH
        assert padding <= 1
    return {document: _joined(parts) for document, parts in found.items()}


@pytest.mark.parametrize("special", [{}, {"bos": BOS}, {"eos": EOS}, {"bos": BOS, "eos": EOS}])
@pytest.mark.parametrize("fitting", ["best-fit", "concat"])
def test_every_token_of_every_document_is_there_once(
    pack: Pack, texts: list[str], tokenizer_file: Path, fitting: str, special: dict[str, int]
) -> None:
    folder = pack(fitting=fitting, pad=PAD, **special)
    expected = {number: ids for number, ids in enumerate(_ids(tokenizer_file, texts)) if len(ids) >= 2}
    rebuilt = _rebuilt(folder, bos="bos" in special, eos="eos" in special)
    assert {number: ids for number, ids in rebuilt.items() if len(ids) >= 2} == expected
    assert len(expected) > 100
    count = folder.manifest["account"]["documents"]
    assert count["read"] == len(texts) == count["kept"] + sum(count["dropped"].values())
    assert folder.manifest["account"]["rows"]["dropped"] == {"null": 1}
    assert verify(folder.path, Engine()).faults == []


def test_best_fit_cuts_only_documents_longer_than_a_sequence(
    pack: Pack, texts: list[str], tokenizer_file: Path
) -> None:
    lengths = [len(ids) for ids in _ids(tokenizer_file, texts)]
    longer = sum(length > LENGTH for length in lengths)
    assert 0 < longer < len(lengths)
    best, concat = pack("best").manifest, pack("concat", fitting="concat").manifest
    assert best["account"]["notes"]["documents_cut"] == longer < concat["account"]["notes"]["documents_cut"]


def test_what_concat_leaves_over_is_padded_or_dropped_and_told(pack: Pack) -> None:
    padded, dropped = pack("a", fitting="concat").manifest, pack("b", fitting="concat", tail="drop").manifest
    assert padded["rows"] == dropped["rows"] + 1
    assert padded["account"]["tokens"]["dropped"].get("tail", 0) == 0
    tail = dropped["account"]["tokens"]["dropped"]["tail"]
    assert tail + padded["account"]["notes"]["padding_tokens"] - dropped["account"]["notes"].get(
        "padding_tokens", 0
    ) == pytest.approx(LENGTH)


def test_workers_and_parts_change_nothing(pack: Pack, two_workers: Engine) -> None:
    alone = pack("alone", format_=("mds", Mds(shard_bytes=20_000)))
    together = pack("together", format_=("mds", Mds(shard_bytes=20_000)), engine=two_workers)
    assert _hashes(alone.path) == _hashes(together.path)
    other = pack("other", columns={"source": "source", "part_rows": 17})
    assert np.array_equal(other.read(0, len(other)).input_ids, alone.read(0, len(alone)).input_ids)


def test_a_seed_shuffles_the_sequences_of_best_fit_and_nothing_else(pack: Pack) -> None:
    one, other = (pack(str(seed), seed=seed).read(0, 40).input_ids.tolist() for seed in (0, 1))
    assert one != other
    whole = [pack(str(seed), seed=seed) for seed in (0, 1)]
    assert sorted(whole[0].read(0, len(whole[0])).input_ids.tolist()) == sorted(
        whole[1].read(0, len(whole[1])).input_ids.tolist()
    )


def test_token_ids_and_mds_pack_as_their_texts_do(
    pack: Pack, texts: list[str], tokenizer_file: Path, tmp_path: Path
) -> None:
    documents = [ids for ids in _ids(tokenizer_file, texts) if len(ids) >= 2]
    table = pa.table({"input_ids": pa.array(documents, pa.list_(pa.int32())), "source": ["a"] * len(documents)})
    pq.write_table(table, tmp_path / "ids.parquet", row_group_size=13)
    by_ids = pack("ids", kind="tokens", path=tmp_path / "ids.parquet", fitting="concat")
    assert by_ids.manifest["rows"] > 20
    # One document a row as MDS, each with padding that must not come back as a document.
    pack("mds", kind="tokens", path=tmp_path / "ids.parquet", length_tokens=1 << 14, format_=("mds", Mds()))
    by_mds = pack("again", kind="mds", path=tmp_path / "mds", fitting="best-fit")
    rebuilt = sorted(_rebuilt_plain(by_mds))
    assert rebuilt == sorted(documents)
    assert by_mds.manifest["account"]["tokens"]["dropped"]["fully_masked"] > 0


def _rebuilt_plain(folder: PackedFolder) -> list[list[int]]:
    found: dict[int, dict[int, list[int]]] = {}
    for row, told in enumerate(folder.provenance(0, len(folder)).to_pylist()):
        ids = folder.read(row, row + 1).input_ids[0].tolist()
        for each in told["segments"]:
            if each["role"] == "document":
                found.setdefault(each["doc_id"], {})[each["first_token"]] = ids[each["start"] : each["end"]]
    return [_joined(parts) for parts in found.values()]


def test_a_mask_travels_with_its_tokens(pack: Pack, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 600, rng.integers(2, 700)).tolist() for _ in range(60)]
    mask = [[token % 2 for token in each] for each in ids]
    columns: dict[str, Any] = {"input_ids": pa.array(ids, pa.large_list(pa.int64())), "mask": mask}
    pq.write_table(pa.table(columns), tmp_path / "ids.parquet", row_group_size=9)
    for fitting in ("best-fit", "concat"):
        folder = pack(fitting, kind="tokens", path=tmp_path / "ids.parquet", fitting=fitting, bos=BOS, eos=EOS)
        for row, told in enumerate(folder.provenance(0, len(folder)).to_pylist()):
            sequence = folder.read(row, row + 1)
            assert sequence.mask is not None
            for each in told["segments"]:
                span = slice(each["start"], each["end"])
                if each["role"] == "document":
                    assert sequence.mask[0, span].tolist() == (sequence.input_ids[0, span] % 2).tolist()


def test_nothing_to_pack_is_told(pack: Pack, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": [None, "", "a"]}, schema=pa.schema([("text", pa.string())])), tmp_path / "x.parquet"
    )
    with pytest.raises(UserError, match="there is no sequence"):
        pack(path=tmp_path / "x.parquet", columns={"text": "text"})
    assert not (tmp_path / "out").exists()
