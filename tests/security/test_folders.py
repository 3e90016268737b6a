"""What a folder from somebody else names or links to outside itself is neither read, written nor deleted."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from etl import compare, demo, pipeline
from etl.engine import Engine
from etl.parts import MARKER, share_file, write_array, write_json, write_raw, write_table
from etl.recipe import Recipe, resolved_yaml
from etl.work import FOLDERS, STAGES, Work, clean
from nextlong.errors import UserError
from nextlong.folders import inside
from nextlong.searching import Index
from tests.etl.test_cli import nextlong
from tests.etl.test_pipeline import data_files, run
from tests.forked import NEXTLONG
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]
BAD_NAMES = ["../../secret.npy", "/etc/passwd", "a/../../secret.npy", "..", "", ".", "a\0b", 3, None]


@pytest.mark.parametrize("name", BAD_NAMES, ids=str)
def test_a_name_that_leads_out_of_its_folder_is_refused(name: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which is none inside it"):
        inside(tmp_path, name)


def test_a_name_inside_its_folder_is_a_path(tmp_path: Path) -> None:
    assert inside(tmp_path, "bm25/vocab.json") == tmp_path / "bm25" / "vocab.json"
    assert inside(tmp_path, "..part") == tmp_path / "..part"


def _in_files(manifest: dict[str, Any], name: Any) -> None:
    manifest["files"] = {name: {"bytes": 1, "sha256": ""}}


def _in_part(manifest: dict[str, Any], name: Any) -> None:
    manifest["parts"][0]["part"] = name


def _in_files_of_part(manifest: dict[str, Any], name: Any) -> None:
    manifest["parts"][0]["files"] = {name: {"bytes": 1, "sha256": ""}}


def _in_tables(manifest: dict[str, Any], name: Any) -> None:
    manifest["parts"][0]["values"]["tables"] = [[name, 1]]


def _in_shards(manifest: dict[str, Any], name: Any) -> None:
    manifest["values"]["shards"] = [name]


@pytest.mark.parametrize("hide", [_in_files, _in_part, _in_files_of_part, _in_tables, _in_shards])
def test_a_manifest_that_names_other_files_is_refused(
    make_recipe: MakeRecipe, hide: Callable[[dict[str, Any], Any], None]
) -> None:
    work, _ = run(make_recipe())
    (work.path.parent / "secret.npy").write_bytes(b"secret")
    for stage in ("index",) if hide is _in_shards else ("interleave", "chunk"):
        manifest = work[stage].manifest_file
        whole = manifest.read_text()
        for name in ("../../secret.npy", str(work.path.parent / "secret.npy")):
            facts = json.loads(whole)
            hide(facts, name)
            manifest.write_text(json.dumps(facts))
            work["pack"].reopen()
            with pytest.raises(UserError, match=r"as one of its files, which is none inside it"):
                pipeline.run(pipeline.start(make_recipe()), Engine())
            with pytest.raises(UserError, match=r"as one of its files, which is none inside it"):
                pipeline.start(make_recipe("other"), reuse=work.path)
            refused = nextlong("clean", work.path, status=2) if stage == "chunk" else None
            assert refused is None or "which is none inside it" in refused.stderr
        manifest.write_text(whole)
    assert not list((work.path.parent / "other").rglob("secret*"))


def test_peek_follows_no_name_out_of_the_folder(make_recipe: MakeRecipe) -> None:
    work, _ = run(make_recipe())
    facts = json.loads(work["interleave"].manifest_file.read_text())
    shutil.copy(work["interleave"].tables()[0][0], work.path.parent / "secret.parquet")
    facts["parts"][0]["part"] = "../../secret"
    work["interleave"].manifest_file.write_text(json.dumps(facts))
    assert "'../../secret' as one of its files" in nextlong("peek", work.path, status=2).stderr


@pytest.mark.parametrize("size", [6, 7], ids=["size as noted", "another size"])
def test_a_marker_that_names_other_files_is_refused(make_recipe: MakeRecipe, size: int) -> None:
    work, _ = run(make_recipe())
    secret = work.path.parent / "secret.npy"
    secret.write_bytes(b"secret")
    marker = sorted(work["embed"].path.glob(f"*{MARKER}"))[0]
    facts = json.loads(marker.read_text())
    marker.write_text(json.dumps(facts | {"files": {"../../secret.npy": {"bytes": size, "sha256": "0"}}}))
    work["embed"].reopen()
    with pytest.raises(UserError, match=r"3-embeddings names '\.\./\.\./secret\.npy' as one of its files"):
        pipeline.run(pipeline.start(make_recipe()), Engine())


def test_a_marker_of_another_part_is_not_this_ones(make_recipe: MakeRecipe) -> None:
    work, _ = run(make_recipe())
    whole = data_files(work)
    marker = sorted(work["embed"].path.glob(f"*{MARKER}"))[0]
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"part": "../../secret"}))
    work["embed"].reopen()
    pipeline.run(pipeline.start(make_recipe()), Engine())
    assert data_files(work) == whole


@pytest.mark.parametrize("name", BAD_NAMES, ids=str)
def test_an_index_names_no_shard_elsewhere(make_recipe: MakeRecipe, name: Any) -> None:
    work, _ = run(make_recipe())
    folder = work["index"].path
    shutil.copy(folder / "shard-00000.faiss", work.path.parent / "secret.npy")
    facts = json.loads((folder / "index.json").read_text())
    assert len(Index.open(folder)) == facts["num_chunks"]
    write_json(folder / "index.json", facts | {"shards": [name]})
    with pytest.raises(UserError, match="which is none inside it"):
        Index.open(folder)


LINKED = [
    FOLDERS["chunk"],
    "1-documents/manifest.json",
    "3-embeddings/part-00000.npy",
    "3-embeddings/part-00000.ok.json",
    "run.log",
    "run.lock",
    "recipe.resolved.yaml",
    "7-packed/part-00000.parquet.1.tmp",
    *in_soak(
        *[FOLDERS[stage] for stage in STAGES if stage != "chunk"], "2-chunks/stage.json", "run.owner", "summary.json"
    ),
]


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", LINKED)
def test_a_link_out_of_a_work_folder_is_not_followed(make_recipe: MakeRecipe, name: str, tmp_path: Path) -> None:
    work, _ = run(make_recipe())
    (work.path / "run.log").touch()
    outside = tmp_path / "outside" / Path(name).name
    outside.parent.mkdir()
    if (work.path / name).exists():
        (work.path / name).rename(outside)
    else:
        outside.write_text("theirs")
    (work.path / name).symlink_to(outside)
    before = _snapshot(outside.parent)
    assert before
    refusals: list[Callable[[], object]] = [
        lambda: pipeline.start(make_recipe()),
        lambda: pipeline.start(make_recipe("other"), reuse=work.path),
        lambda: Work.open(work.path),
        lambda: clean(work.path),
        lambda: clean(work.path, "read"),
    ]
    for refusal in refusals:
        with pytest.raises(UserError, match=rf"work/{name} is a link to {outside}, out of the folder, and is not foll"):
            refusal()
    assert _snapshot(outside.parent) == before
    assert not [path for path in (tmp_path / "other").iterdir() if path.is_dir()]


def test_every_verb_says_so_in_one_sentence(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    work, _ = run(make_recipe())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(resolved_yaml(make_recipe()))
    (tmp_path / "victim").write_text("theirs")
    (work.path / "run.log").unlink(missing_ok=True)
    (work.path / "run.log").symlink_to(tmp_path / "victim")
    other = ["--output", tmp_path / "other", "--reuse", work.path]
    for arguments in (["run", recipe], ["run", recipe, *other], ["peek", work.path], ["clean", work.path]):
        refused = nextlong(*arguments, status=2)
        assert "work/run.log is a link to" in refused.stderr.strip().splitlines()[-1]
    assert (tmp_path / "victim").read_text() == "theirs"


def test_a_link_to_nothing_makes_no_file_there(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    work, _ = run(make_recipe())
    (work.path / "summary.json").unlink()
    (work.path / "summary.json").symlink_to(tmp_path / "made")
    with pytest.raises(UserError, match=r"summary\.json is a link to .*made"):
        pipeline.start(make_recipe())
    assert not (tmp_path / "made").exists()


def test_comparisons_and_demos_follow_no_link_either(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    for name in ("comparison", "demo"):
        (tmp_path / name).mkdir()
    (tmp_path / "comparison" / "compared.recipe.yaml").symlink_to(victim)
    (tmp_path / "demo" / "recipe.yaml").symlink_to(victim)
    with pytest.raises(UserError, match=r"compared\.recipe\.yaml is a link to"):
        compare.prepare_all(make_recipe(), ["standard"], tmp_path / "comparison")
    with pytest.raises(UserError, match=r"demo/recipe\.yaml is a link to"):
        demo.make_recipe(tmp_path / "demo", 10)
    assert victim.read_text() == "theirs"


def test_the_work_folder_itself_may_be_a_link(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "disk" / "work").mkdir(parents=True)
    (tmp_path / "work").symlink_to(tmp_path / "disk" / "work")
    work, _ = run(make_recipe())
    alone, _ = run(make_recipe("alone"))
    assert data_files(work) == data_files(alone)
    pipeline.run(pipeline.start(make_recipe("other"), reuse=tmp_path / "work"), Engine())
    assert clean(tmp_path / "work", "pack") == [tmp_path / "work" / FOLDERS["pack"]]
    assert not (tmp_path / "disk" / "work" / FOLDERS["pack"]).exists()


def test_links_within_a_work_folder_are_the_users_and_clean_does_not_follow_them(make_recipe: MakeRecipe) -> None:
    work, _ = run(make_recipe())
    (work.path / "elsewhere").mkdir()
    (work.path / "latest").symlink_to(FOLDERS["pack"])
    moved = work["embed"].path.rename(work.path / "elsewhere" / "embeddings")
    work["embed"].path.symlink_to(moved)
    before = _snapshot(moved)
    assert pipeline.run(pipeline.start(make_recipe()), Engine())["stages"]["embed"]["rows"]
    clean(work.path, "embed")
    assert not work["embed"].path.is_symlink()
    assert _snapshot(moved) == before
    assert (work.path / "latest").is_symlink()


def _write_table(path: Path) -> None:
    write_table(path, pa.table({"a": [1]}))


def _share_a_copy(path: Path) -> None:
    source = path.with_name("source")
    source.write_text("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", _no_links)
        share_file(source, path)


def _no_links(*_: object) -> None:
    raise OSError("this file system has no hard links")


@pytest.mark.parametrize(
    "write",
    [
        _write_table,
        _share_a_copy,
        lambda path: write_json(path, {}),
        lambda path: write_array(path, np.ones(3)),
        lambda path: write_raw(path, np.ones(3)),
    ],
    ids=["table", "copy", "json", "array", "raw"],
)
def test_a_link_at_the_name_of_a_file_that_is_written_is_not_followed(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("theirs")
    path.symlink_to(victim)
    write(path)
    assert victim.read_text() == "theirs"
    assert path.is_file()
    assert not path.is_symlink()
    guessed = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: guessed)
    (tmp_path / f"file.{guessed.hex}.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write(path)
    assert victim.read_text() == "theirs"


@pytest.mark.parametrize(
    "umask", [0o027, *(pytest.param(each, marks=pytest.mark.long) for each in (0o077, 0o002))], ids=oct
)
def test_files_are_made_with_the_users_umask(make_recipe: MakeRecipe, tmp_path: Path, umask: int) -> None:
    """By workers, by FAISS and bm25s, by locks, logs and hard links; a comparison makes and reuses all of them."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(resolved_yaml(make_recipe(index={"factory": "IVF4,Flat"})))
    out = tmp_path / "made" / "comparison"
    names = ["nextlong", "nextlong-tail", "nextlong-bm25", "quest"]
    verb = ["compare", recipe, "--index.factory", "IVF4,Flat", "--workers", 1, "--out", out, "--strategies", *names]
    subprocess.run([*NEXTLONG, *map(str, verb)], umask=umask, capture_output=True, check=True, timeout=200)
    paths = [out.parent, *out.parent.rglob("*")]
    endings = {path.suffix for path in paths}
    assert endings >= {".parquet", ".npy", ".tokens", ".faiss", ".json", ".yaml", ".log", ".lock"}
    assert any(path.stat().st_nlink > 1 for path in paths if path.is_file())
    for path in paths:
        widest = 0o777 if path.is_dir() else 0o666
        assert oct(path.stat().st_mode & 0o777) == oct(widest & ~umask), path
