"""Mixtures of packed folders: exact at every prefix, every row once a pass, and traceable."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from etl.engine import Engine
from etl.shards.export import export
from etl.shards.of_folder import PackedFolder
from etl.shards.of_mixture import Mixture
from etl.shards.trace import trace
from etl.shards.verify import verify
from nextlong.errors import UserError
from nextlong.shards.mds import Mds
from nextlong.shards.parquet import Parquet
from tests.etl.shards.conftest import Pack
from tests.etl.shards.test_export import _hashes
from tests.etl.test_cli import nextlong


@pytest.fixture
def folders(pack: Pack) -> list[PackedFolder]:
    return [pack("long", fitting="concat", tail="drop"), pack("short", seed=3, format_=("mds", Mds(shard_bytes=9_000)))]


def _mixed(folders: list[PackedFolder], out: Path, engine: Engine | None = None, **how: object) -> PackedFolder:
    mixture = Mixture.of([folder.path for folder in folders], **how)  # type: ignore[arg-type]
    export(mixture, str(out), "parquet", Parquet(group_tokens=2_000), engine or Engine())
    return PackedFolder.open(out)


def _origins(folder: PackedFolder) -> list[tuple[str, int]]:
    told = folder.provenance(0, len(folder))["origin"].to_pylist()
    return [(each.split(", row ")[0], int(each.split(", row ")[1])) for each in told]


def test_proportions_hold_at_every_prefix_and_rows_are_those_of_the_folders(
    folders: list[PackedFolder], tmp_path: Path
) -> None:
    mixed = _mixed(folders, tmp_path / "mix", proportions=["33.33", "66.67"])
    origins = _origins(mixed)
    assert len(origins) > 30
    for number in range(1, len(origins) + 1):
        taken = sum(name == "long" for name, _ in origins[:number])
        assert abs(taken - Fraction("0.3333") * number) < 1
    assert len(set(origins)) == len(origins)
    by_name = {folder.path.name: folder.read(0, len(folder)) for folder in folders}
    rows = mixed.read(0, len(mixed))
    assert rows.mask is not None
    for row, (name, place) in enumerate(origins):
        source = by_name[name]
        assert np.array_equal(rows.input_ids[row], source.input_ids[place])
        assert np.array_equal(rows.pieces(row), source.pieces(place))
        assert rows.domains[row] == source.domains[place]
        assert source.mask is None or np.array_equal(rows.mask[row], source.mask[place])
    count = mixed.manifest["account"]["sequences"]
    assert count["read"] == sum(map(len, folders)) == count["kept"] + count["dropped"]["beyond_proportion"]
    assert verify(tmp_path / "mix", Engine()).faults == []


def test_repeats_go_through_each_folder_so_often(folders: list[PackedFolder], tmp_path: Path) -> None:
    mixed = _mixed(folders, tmp_path / "mix", repeats=["1", "2.5"])
    sizes = {folder.path.name: len(folder) for folder in folders}
    origins = _origins(mixed)
    assert len(origins) == sizes["long"] + int(2.5 * sizes["short"])
    taken = [place for name, place in origins if name == "short"]
    assert taken == [place % sizes["short"] for place in range(len(taken))]
    assert sorted(place for name, place in origins if name == "long") == list(range(sizes["long"]))


def test_a_shuffle_is_anew_each_pass_and_the_same_by_seed(
    folders: list[PackedFolder], tmp_path: Path, two_workers: Engine
) -> None:
    one = _mixed(folders, tmp_path / "one" / "mix", repeats=["1", "2"], seed=5)
    two = _mixed(folders, tmp_path / "two" / "mix", two_workers, repeats=["1", "2"], seed=5)
    assert _hashes(one.path) == _hashes(two.path)
    taken, size = [place for name, place in _origins(one) if name == "short"], len(folders[1])
    assert sorted(taken[:size]) == sorted(taken[size:]) == list(range(size))
    assert taken[:size] != taken[size:]


def test_documents_keep_their_names(folders: list[PackedFolder], tmp_path: Path) -> None:
    mixed = _mixed(folders, tmp_path / "mix", proportions=["1", "1"])
    for row in (0, 1, 10):
        name, place = _origins(mixed)[row]
        lines = trace(tmp_path / "mix", row).splitlines()
        assert lines[1] == f"  from {name}, row {place}"
        assert lines[3:] == trace(tmp_path / name, place).splitlines()[2:]


def test_a_mixture_can_be_mixed(folders: list[PackedFolder], tmp_path: Path) -> None:
    _mixed(folders, tmp_path / "mix", proportions=["1", "1"])
    again = _mixed([PackedFolder.open(tmp_path / "mix"), folders[0]], tmp_path / "again", proportions=["2", "1"])
    assert verify(tmp_path / "again", Engine()).faults == []
    assert len(again) > 10


def test_what_cannot_be_mixed(folders: list[PackedFolder], pack: Pack, tmp_path: Path) -> None:
    other = pack("other", length_tokens=128)
    for paths, how, message in (
        ([folders[0].path, other.path], {"proportions": ["1", "1"]}, "has sequences of 128 tokens, but .* of 256"),
        ([folders[0].path], {"proportions": ["1"]}, "two folders or more"),
        ([folders[0].path] * 2, {"proportions": ["1", "1"]}, "two of the folders are called long"),
        ([folder.path for folder in folders], {"proportions": ["1"]}, "there are 2 folders, but 1 numbers"),
        ([folder.path for folder in folders], {"proportions": ["1", "-1"]}, "each must be above 0"),
        ([folder.path for folder in folders], {"repeats": ["1", "x"]}, "must be numbers"),
        ([tmp_path, folders[0].path], {"repeats": ["1", "1"]}, "is no export"),
    ):
        with pytest.raises(UserError, match=message):
            Mixture.of(paths, **how)  # type: ignore[arg-type]


def test_the_command_mixes(folders: list[PackedFolder], tmp_path: Path) -> None:
    paths = [folder.path for folder in folders]
    options = ["--proportions", "33.33", "66.67", "--rows", 60, "--workers", 0, "--out", tmp_path / "mix"]
    ran = nextlong("mix", *paths, *options)
    assert "60 sequences of 256 tokens" in ran.stdout
    assert "sequences of long: 20" in ran.stdout
