"""Whatever is changed in a packed folder is found: a bit, a file, a number of the manifest, a word of provenance."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.engine import Engine
from etl.parts import file_facts
from etl.shards.export import export
from etl.shards.manifest import sealed
from etl.shards.of_folder import PackedFolder
from etl.shards.of_mixture import Mixture
from etl.shards.source import ROWS
from etl.shards.trace import trace
from etl.shards.verify import verify
from nextlong.errors import UserError
from nextlong.shards.arrow import Arrow
from nextlong.shards.mds import Mds
from nextlong.shards.megatron import Megatron
from nextlong.shards.parquet import Parquet
from tests.etl.shards.conftest import LENGTH, Pack
from tests.etl.shards.refusals import refused
from tests.etl.test_cli import nextlong
from tests.marks import in_soak

FORMATS: dict[str, tuple[str, Any]] = {
    "mds": ("mds", Mds(shard_bytes=65_536, hashes=("sha1",))),
    "mds-zstd": ("mds", Mds(shard_bytes=65_536, compression="zstd")),
    "llm-foundry": ("mds", Mds(columns="llm-foundry")),
    "parquet": ("parquet", Parquet(shard_tokens=64 * LENGTH)),
    "arrow": ("arrow", Arrow(shard_tokens=64 * LENGTH)),
    "megatron": ("megatron", Megatron(vocab_size=600, shard_tokens=64 * LENGTH)),
}


@pytest.fixture(params=FORMATS)
def packed(request: pytest.FixtureRequest, pack: Pack) -> Path:
    """A packed folder of several shards, with bos, eos, padding and so a mask."""
    folder = pack("packed", format_=FORMATS[request.param], bos=5, eos=6).path
    assert verify(folder, Engine()).faults == []
    return folder


@pytest.fixture
def mds(pack: Pack) -> Path:
    return pack("packed", format_=FORMATS["mds"], bos=5, eos=6).path


def _files(folder: Path) -> list[Path]:
    """All but the card, which people fill in."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")
    assert {"manifest.json", "tokenizer.json", "documents.parquet"} < {path.name for path in files}
    assert len(files) >= 6
    return files


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _found(folder: Path, name: str) -> bool:
    """Whether verify names a file as changed; a manifest may be beyond reading."""
    try:
        return any(name in fault and "not as it was written" in fault for fault in verify(folder, Engine()).faults)
    except UserError as error:
        return name == "manifest.json" and ("is damaged" in str(error) or "is no export" in str(error))


def test_a_flipped_bit_in_any_file_is_found(packed: Path) -> None:
    for path in _files(packed):
        whole = path.read_bytes()
        for place in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            _flip(path, place)
            assert _found(packed, path.name), (path, place)
            path.write_bytes(whole)
    assert verify(packed, Engine()).faults == []


def test_a_file_that_is_gone_shorter_or_longer_is_found(packed: Path) -> None:
    for path in _files(packed):
        whole = path.read_bytes()
        for content in (None, whole[:-2], whole + b"}", b""):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            assert _found(packed, path.name), path
            path.write_bytes(whole)


def test_files_of_the_same_size_that_were_exchanged_are_found(pack: Pack) -> None:
    folder = pack("packed", format_=("mds", Mds(shard_bytes=20_000)), fitting="concat", columns={}).path
    by_size: dict[int, list[Path]] = {}
    for path in folder.glob("*.mds"):
        by_size.setdefault(path.stat().st_size, []).append(path)
    [one, other] = next(paths[:2] for paths in by_size.values() if len(paths) > 1)
    assert one.read_bytes() != other.read_bytes()
    one.rename(folder / "third")
    other.rename(one)
    (folder / "third").rename(other)
    assert {fault.split(" is not ")[0] for fault in verify(folder, Engine()).faults} == {str(one), str(other)}


@pytest.mark.parametrize("name", ["data/train-00009-of-00010.parquet", "shard.00099.mds", "a.bin", "x/y.idx"])
def test_a_file_too_many_that_readers_may_take_for_data_is_a_fault(packed: Path, name: str) -> None:
    (packed / name).parent.mkdir(exist_ok=True)
    (packed / name).write_bytes(b"PAR1")
    [fault] = verify(packed, Engine()).faults
    assert fault == f"{packed / name} is no file of the export, but may be taken for one. Delete it."


def test_other_files_too_many_are_told(mds: Path) -> None:
    for name in ("notes.txt", ".cache/huggingface/x.lock", ".gitattributes", "sequences_indexmap_2ns.npy"):
        (mds / name).parent.mkdir(exist_ok=True, parents=True)
        (mds / name).touch()
    verdict = verify(mds, Engine())
    assert verdict.faults == []
    told = [each.partition(" ")[0] for each in verdict.facts if each.endswith(" is no file of the export")]
    assert told == [".cache/huggingface/x.lock", ".gitattributes", "notes.txt", "sequences_indexmap_2ns.npy"]


def test_a_shard_that_a_reader_unpacked_is_compared_with_what_it_was(pack: Pack) -> None:
    folder = pack("packed", format_=FORMATS["mds-zstd"]).path
    zipped = folder / "shard.00000.mds.zstd"
    raw_bytes = json.loads((folder / "index.json").read_text())["shards"][0]["raw_data"]["bytes"]
    unpacked = pa.Codec("zstd").decompress(zipped.read_bytes(), raw_bytes, asbytes=True)
    raw = folder / "shard.00000.mds"
    raw.write_bytes(unpacked)
    assert verify(folder, Engine()).faults == []
    flipped = unpacked[:-70] + bytes([unpacked[-70] ^ 1]) + unpacked[-69:]
    for other in (flipped, unpacked[:-1], unpacked + b"\0", b""):
        raw.write_bytes(other)
        assert f"{raw} is not what its .zstd holds. Delete it." in verify(folder, Engine()).faults


def _rewrite(folder: Path, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    change(told)
    (folder / "manifest.json").write_text(json.dumps(sealed(told) if seal else told))


LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "rows": (lambda told: told.update(rows=told["rows"] + 1), "states 1[0-9]{2} rows, but its shards have"),
    "tokens": (lambda told: told.update(tokens=7), "states 7 tokens, but"),
    "vocabulary": (
        lambda told: told.update(vocab_size=601),
        r"states a vocabulary of 601, but that of tokenizer\.json",
    ),
    "small vocabulary": (lambda told: told.update(vocab_size=9), "states a vocabulary of 9, but|the vocabulary has 9"),
    "tokenizer": (
        lambda told: told.update(tokenizer_sha256="0" * 64),
        r"states another tokenizer than tokenizer\.json",
    ),
    "format": (lambda told: told.update(format="arrow"), "."),
    "unknown format": (lambda told: told.update(format="csv"), "is of the format 'csv', but this version reads mds"),
    "mask": (lambda told: told.update(has_mask=False), "there is a mask"),
    "length": (lambda told: told.update(sequence_length_tokens=64), "there are other sequences|states .* tokens, but"),
    "shards": (lambda told: _move_row(told), "."),
    "account": (
        lambda told: told["account"]["tokens"].update(kept=1),
        "states an account of tokens that does not balance",
    ),
    "checksum": (
        lambda told: told["files"]["tokenizer.json"].update(sha256="0"),
        r"tokenizer\.json is not as it was written",
    ),
}


def _move_row(told: dict[str, Any]) -> None:
    told["shards"][0]["rows"] -= 1
    told["shards"][1]["rows"] += 1


@pytest.mark.parametrize(("change", "match"), LIES.values(), ids=LIES)
def test_a_manifest_that_lies_is_found_sealed_or_not(
    mds: Path, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    whole = (mds / "manifest.json").read_text()
    _rewrite(mds, change)
    told = verify(mds, Engine()).faults
    assert told
    assert any(re.search(match, fault) for fault in told)
    (mds / "manifest.json").write_text(whole)
    _rewrite(mds, change, seal=False)
    assert f"{mds / 'manifest.json'} is not as it was written: it has another checksum." in verify(mds, Engine()).faults
    refused(lambda: trace(mds, 0), r"manifest\.json is not as it was written. Run 'nextlong verify")


def test_a_made_up_history_is_found_by_the_seal(mds: Path) -> None:
    _rewrite(mds, lambda told: told["made_by"].update(verb="convert"), seal=False)
    [fault] = verify(mds, Engine()).faults
    assert "manifest.json is not as it was written" in fault


NAMES = ["format", "shards", "provenance", "files", "rows", "tokens", "sequence_length_tokens", "tokenizer_sha256"]
NAMES += ["vocab_size", "has_mask", "made_by", "account", "options", "fingerprint"]
VALUES: list[Any] = [None, [], {}, "x", -1, 10**30, 1.5, [None], [{}], {"a": 1}, {"a": {"bytes": "x"}}]
RIGHT = {("made_by", "{}"), ("made_by", "{'a': 1}"), ("made_by", "{'a': {'bytes': 'x'}}"), ("account", "{}")}
RIGHT |= {("options", "{}"), ("options", "{'a': 1}"), ("options", "{'a': {'bytes': 'x'}}"), ("fingerprint", "'x'")}


@pytest.mark.parametrize("name", [*NAMES[:2], *in_soak(*NAMES[2:])])
def test_a_manifest_of_other_types_ends_in_a_sentence_whatever_reads_it(mds: Path, pack: Pack, name: str) -> None:
    whole = (mds / "manifest.json").read_text()
    other = pack("other", bos=5, eos=6).path
    out = mds.with_name("out")
    readers: list[Callable[[], object]] = [
        lambda: verify(mds, Engine()),
        lambda: trace(mds, 0),
        lambda: export(PackedFolder.open(mds), str(out), *FORMATS["parquet"], Engine()),
        lambda: export(Mixture.of([mds, other], proportions=["1", "1"]), str(out), *FORMATS["parquet"], Engine()),
    ]
    for value in VALUES:
        (mds / "manifest.json").write_text(whole)
        _rewrite(mds, lambda told, value=value: told.update({name: value}))
        if (name, repr(value)) in RIGHT:
            assert verify(mds, Engine()).faults == []
            continue
        for read in readers:
            with contextlib.suppress(UserError):  # and nothing else
                found = read()
                assert read is not readers[0] or found.faults  # type: ignore[attr-defined]
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(out.with_name(".out.partial"), ignore_errors=True)


@pytest.mark.parametrize("content", ["[]", "{}", "{", "", "null", '{"format": "mds"}', "[" * 100_000])
def test_another_file_of_that_name_is_no_manifest(mds: Path, content: str) -> None:
    (mds / "manifest.json").write_text(content)
    for read in (lambda: verify(mds, Engine()), lambda: trace(mds, 0), lambda: PackedFolder.open(mds)):
        refused(read, r"packed is no export: it has no manifest\.json of one")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", ""])
@pytest.mark.parametrize("where", ["files", "shards", "provenance"])
def test_names_that_lead_out_are_refused(mds: Path, name: str, where: str) -> None:
    def change(told: dict[str, Any]) -> None:
        told["files"][name] = {"bytes": 1, "sha256": "0"}
        if where == "shards":
            told["shards"][0]["files"] = [name]
        if where == "provenance":
            told["provenance"][0] = name

    _rewrite(mds, change)
    for read in (lambda: verify(mds, Engine()), lambda: trace(mds, 0)):
        refused(read, "as one of its files, which is none inside it")


def test_files_without_a_checksum_are_refused(mds: Path) -> None:
    whole = (mds / "manifest.json").read_text()
    for name in ("shard.00001.mds", "provenance/rows-00000.parquet", "provenance/documents.parquet", "tokenizer.json"):
        _rewrite(mds, lambda told, name=name: told["files"].pop(name))
        refused(lambda: verify(mds, Engine()), f"manifest.json is damaged: it has no checksum of {name}")
        (mds / "manifest.json").write_text(whole)


@pytest.mark.parametrize("name", ["shard.00000.mds", "provenance", "manifest.json", "extra"])
def test_links_out_of_the_folder_are_not_followed(mds: Path, name: str) -> None:
    outside = mds.with_name("outside")
    if (mds / name).exists():
        (mds / name).rename(outside)
    else:
        outside.write_text("theirs")
    (mds / name).symlink_to(outside)
    for read in (lambda: verify(mds, Engine()), lambda: trace(mds, 0), lambda: PackedFolder.open(mds)):
        refused(read, f"{name} is a link to .*outside, out of the folder, and is not followed")


def _segments(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[pa.Table], pa.Table]:
    """Change the segments of the third row."""

    def rewrite(rows: pa.Table) -> pa.Table:
        values = rows["segments"].to_pylist()
        change(values[2])
        return rows.set_column(5, ROWS.field("segments"), pa.array(values, ROWS.field("segments").type))

    return rewrite


def _column(name: str, change: Callable[[list[Any]], object]) -> Callable[[pa.Table], pa.Table]:
    def rewrite(rows: pa.Table) -> pa.Table:
        values = rows[name].to_pylist()
        change(values)
        return rows.set_column(ROWS.get_field_index(name), ROWS.field(name), pa.array(values, ROWS.field(name).type))

    return rewrite


PROVENANCE: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a gap": (_segments(lambda each: each[0].update(end=each[0]["end"] - 1)), "row 2: the segments .* do not tile it"),
    "an overlap": (_segments(lambda each: each[-1].update(start=0)), "row 2: the segments .* do not tile it"),
    "a short end": (_segments(lambda each: each[-1].update(end=LENGTH - 1)), "row 2: the segments .* do not tile it"),
    "a late start": (_segments(lambda each: each[0].update(start=1)), "row 2: the segments .* do not tile it"),
    "back and forth": (
        _segments(lambda each: each.insert(1, each[0] | {"start": each[0]["end"], "end": each[0]["end"]})),
        "row 2: the segments .* do not tile it",
    ),
    "no segment": (_segments(list.clear), "row 2: its provenance has no segment"),
    "another document": (_segments(lambda each: each[1].update(doc_id=10**6)), "row 2: .* doc_id 1000000, which is no"),
    "a null": (_segments(lambda each: each[0].update(role=None)), "their segments have nulls"),
    "a null row": (_column("segments", lambda each: each.__setitem__(2, None)), "has nulls"),
    "other rows": (_column("row", lambda each: each.__setitem__(2, 7)), "their provenance is of other rows"),
    "other boundaries": (
        _column("indices", lambda each: each.__setitem__(2, [[0, 10], [10, LENGTH]])),
        "boundaries from row 0 on are others than those in the provenance",
    ),
    "another domain": (_column("domain", lambda each: each.__setitem__(2, "x")), "domains from row 0 on are others"),
    "fewer rows": (lambda rows: rows.slice(0, len(rows) - 1), "rows-00000.parquet is of [0-9]+ rows"),
    "fewer columns": (lambda rows: rows.drop_columns(["domain"]), "No match for FieldRef|domain"),
}


@pytest.mark.parametrize(("change", "match"), PROVENANCE.values(), ids=PROVENANCE)
def test_provenance_that_cannot_be_is_found(mds: Path, change: Callable[[pa.Table], pa.Table], match: str) -> None:
    """Even where its checksum and the manifest's were made anew."""
    name = "provenance/rows-00000.parquet"
    rows = change(pq.read_table(mds / name))
    pq.write_table(rows, mds / name)
    _rewrite(mds, lambda told: told["files"].update({name: file_facts(mds / name)}))
    faults = verify(mds, Engine()).faults
    assert len(faults) == 1
    assert re.search(match, faults[0])
    if "do not tile" in match or "no segment" in match:
        refused(lambda: trace(mds, 2), f"{match}.* Run 'nextlong verify")


def test_the_command_names_every_fault_and_exits_with_1(mds: Path) -> None:
    _flip(mds / "shard.00000.mds", 100)
    os.unlink(mds / "index.json")
    (mds / "more.mds").touch()
    ran = nextlong("verify", mds, "--workers", 0, status=1)
    wrong = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("WRONG")]
    assert sorted(wrong) == [str(mds / name) for name in ("index.json", "more.mds", "shard.00000.mds")]
    assert ran.stdout.splitlines()[-1] == f"{mds}: 3 faults"


def test_a_card_that_was_filled_in_is_no_fault(mds: Path) -> None:
    (mds / "README.md").write_text("license: apache-2.0")
    assert verify(mds, Engine()).faults == []


def test_workers_find_the_same(mds: Path, two_workers: Engine) -> None:
    assert verify(mds, two_workers) == verify(mds, Engine())
    path = _files(mds)[-2]
    _flip(path, 10)
    assert verify(mds, two_workers) == verify(mds, Engine())
    assert verify(mds, Engine()).faults
