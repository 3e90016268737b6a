"""An object store as input, by s3fs from a real server: the bytes of local files, what is fetched, every mistake."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import zstandard

from etl.connect import local_engine
from etl.engine import Engine
from etl.inputs import Input, identify, list_files, plan_splits, read_split
from etl.recipe import Recipe, resolved_yaml
from nextlong.errors import UserError
from tests.conftest import make_texts
from tests.etl.object_store import KEY, SECRET, Store
from tests.etl.test_cli import nextlong
from tests.etl.test_pipeline import run
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]
CORPORA = {
    "parquet": "corpus/parquet",
    "jsonl": "corpus/jsonl",
    "jsonl.gz": "corpus/packed/*.jsonl.gz",
    "jsonl.zst": "corpus/packed/*.zst",
    "text folder": "corpus/text",
    "glob": "corpus/*/0*.jsonl*",
    "several": ["corpus/parquet", "corpus/jsonl/01.jsonl"],
}


@pytest.fixture
def bucket(store: Store) -> Iterator[s3fs.S3FileSystem]:
    """An empty bucket named `bucket`."""
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir("bucket")
    yield files
    store.accept_known_keys_only(False)
    files.rm("bucket", recursive=True)


@pytest.fixture(scope="module")
def workers(store: Store) -> Iterator[Engine]:
    """Two worker processes that have the credentials from their environment."""
    with local_engine(2) as engine:
        yield engine


def write_corpus(folder: Path) -> Path:
    """The same texts as parquet, jsonl, both compressions and text files."""
    texts = [text for _, text in make_texts(60)] + ["", "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{GRINNING FACE}"]
    for name in ("parquet", "jsonl", "packed", "text"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        some = texts[number::2]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in some).encode()
        pq.write_table(pa.table({"text": some}), folder / "parquet" / f"{number:02}.parquet", row_group_size=5)
        (folder / "jsonl" / f"{number:02}.jsonl").write_bytes(lines)
        (folder / "packed" / f"{number:02}.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
        (folder / "packed" / f"{number:02}.jsonl.zst").write_bytes(zstandard.compress(lines))
    for number, text in enumerate(texts):
        (folder / "text" / f"{number:02}.txt").write_text(text)
    return folder


@pytest.mark.parametrize("name", ["parquet", "several", *in_soak(*sorted(CORPORA.keys() - {"parquet", "several"}))])
def test_the_same_files_in_a_bucket_give_the_bytes_of_local_ones(
    name: str, make_recipe: MakeRecipe, bucket: s3fs.S3FileSystem, workers: Engine, tmp_path: Path
) -> None:
    addresses = CORPORA[name]
    bucket.put(str(write_corpus(tmp_path / "corpus")), "bucket/corpus", recursive=True)
    bucket.pipe("bucket/corpus/jsonl/.hidden.jsonl", b"not for reading")

    def read(name: str, start: str) -> dict[str, str]:
        several = [addresses] if isinstance(addresses, str) else addresses
        path = [f"{start}/{address}" for address in several]
        recipe = make_recipe(
            name, input={"path": path, "id": None, "source": None, "part_rows": None, "part_bytes": 5000}
        )
        work, _ = run(recipe, workers, only="read")
        files = {
            str(each.relative_to(work.path)): each.read_bytes().hex()
            for each in sorted(work["read"].path.iterdir())
            if each.name != ".lock"
        }
        assert len([name for name in files if name.endswith(".parquet")]) > 1
        return files

    assert read("remote", "s3://bucket") == read("local", str(tmp_path))


def test_evaluation_texts_may_be_in_a_bucket(
    make_recipe: MakeRecipe, bucket: s3fs.S3FileSystem, workers: Engine, tmp_path: Path
) -> None:
    import dataclasses

    from nextlong.config import Decontamination

    local = write_corpus(tmp_path / "corpus") / "jsonl" / "01.jsonl"
    bucket.put(str(local), "bucket/evaluation/01.jsonl")
    made = {}
    for name, path in (("here", str(local)), ("there", "s3://bucket/evaluation/*.jsonl")):
        recipe = make_recipe(name, input={"path": str(tmp_path / "corpus" / "jsonl"), "id": None, "source": None})
        recipe = dataclasses.replace(recipe, decontamination=Decontamination(path=path))
        _, summary = run(recipe, workers, only="read")
        made[name] = summary["stages"]["read"]["account"]["documents"]
    assert made["here"] == made["there"]
    assert made["here"]["dropped"]["contaminated by 01.jsonl"] > 20


def test_of_a_large_object_only_what_is_read_is_fetched(store: Store, bucket: s3fs.S3FileSystem) -> None:
    noise = [os.urandom(500_000) for _ in range(64)]
    columns = {"text": [f"text {number}" for number in range(64)], "picture": noise}
    with bucket.open("bucket/large.parquet", "wb") as file:
        pq.write_table(pa.table(columns), file, row_group_size=8, compression="none")
    bucket.pipe("bucket/large.jsonl", b"".join(b'{"text": "%s"}\n' % data[:100_000].hex().encode() for data in noise))
    for name, part in (("large.parquet", {"part_rows": 8}), ("large.jsonl", {"part_bytes": 400_000})):
        size = bucket.info(f"bucket/{name}")["size"]
        settings = Input(path=f"s3://bucket/{name}", **part)  # type: ignore[arg-type]
        store.bytes_sent = 0
        files = list_files(settings)
        identify(files)
        assert 2 * 65_536 <= store.bytes_sent < 200_000
        [first, *others] = plan_splits(settings, files)
        assert len(others) > 5
        store.bytes_sent = 0
        assert read_split(first, settings).table.num_rows >= 2
        assert store.bytes_sent < (size / 2 if name == "large.jsonl" else size / 10)


def test_what_is_not_there_is_told(bucket: s3fs.S3FileSystem) -> None:
    bucket.touch("bucket/folder/a.txt")
    for address, message in (
        ("s3://no-such-bucket/corpus", "s3://no-such-bucket/corpus does not exist"),
        ("s3://no-such-bucket/*.parquet", r"s3://no-such-bucket/\*\.parquet (matches no file|cannot be listed)"),
        ("s3://bucket/nothing.parquet", "s3://bucket/nothing.parquet does not exist"),
        ("s3://bucket/*.parquet", r"s3://bucket/\*\.parquet matches no file"),
        ("simplecache::s3://bucket/folder", "is a chain of addresses, which is not supported"),
        ("zip://a.txt::s3://bucket/a.zip", "is a chain of addresses, which is not supported"),
        ("zip://a.txt", "zip://a.txt cannot be opened"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            list_files(Input(path=address))
        assert "\n" not in str(caught.value)


def test_a_key_that_is_not_accepted_is_told_at_listing_and_at_reading(store: Store, bucket: s3fs.S3FileSystem) -> None:
    bucket.pipe("bucket/a.jsonl", b'{"text": "a"}\n')
    settings = Input(path="s3://bucket/a.jsonl")
    files = list_files(settings)
    [split] = plan_splits(settings, files)
    store.accept_known_keys_only(True)
    for path in ("s3://bucket/a.jsonl", "s3://bucket", "s3://bucket/*.jsonl"):
        message = r"input\.path s3://bucket\S* cannot be listed: PermissionError: .*Credentials are taken from the env"
        with pytest.raises(UserError, match=message):
            list_files(Input(path=path))
    for read in (lambda: read_split(split, settings), lambda: identify(files)):
        with pytest.raises(UserError, match=r"a\.jsonl: you may not read s3://bucket/a\.jsonl\. Credentials are taken"):
            read()


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.txt", "a.jsonl.gz"])
def test_an_object_that_is_deleted_or_changed_after_listing_is_told(name: str, bucket: s3fs.S3FileSystem) -> None:
    def write(text: str) -> None:
        with bucket.open(f"bucket/{name}", "wb") as file:
            if name == "a.parquet":
                pq.write_table(pa.table({"text": [text]}), file)
            else:
                lines = json.dumps({"text": text}).encode()
                file.write(gzip.compress(lines, mtime=0) if name.endswith(".gz") else lines)

    write("one")
    settings = Input(path="s3://bucket")
    files = list_files(settings)
    [split] = plan_splits(settings, files)
    assert read_split(split, settings).table.num_rows == 1
    write("two")
    for read in (lambda: read_split(split, settings), lambda: identify(files)):
        with pytest.raises(UserError, match=rf"^{name} was changed after it was listed: s3://bucket/{name}\. Start"):
            read()
    bucket.rm(f"bucket/{name}")
    for read in (lambda: read_split(split, settings), lambda: identify(files)):
        with pytest.raises(UserError, match=rf"^{name} was in the input when it was listed, but s3://bucket/{name} is"):
            read()


def test_a_server_that_is_gone_is_told(
    store: Store, bucket: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.pipe("bucket/a.jsonl", b'{"text": "a"}\n')
    settings = Input(path="s3://bucket/a.jsonl")
    [split] = plan_splits(settings, list_files(settings))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    message = r"s3://bucket/a\.jsonl cannot be listed: EndpointConnectionError: .*127\.0\.0\.1:9.* the network\.$"
    with pytest.raises(UserError, match=message):
        list_files(settings)
    with pytest.raises(UserError, match=r"s3://bucket/a\.jsonl cannot be read: EndpointConnectionError: .*kept\.$"):
        read_split(split, settings)
    s3fs.S3FileSystem.clear_instance_cache()


def test_no_secret_is_written_anywhere(
    make_recipe: MakeRecipe, bucket: s3fs.S3FileSystem, store: Store, tmp_path: Path
) -> None:
    bucket.put(str(write_corpus(tmp_path / "corpus") / "parquet"), "bucket/corpus", recursive=True)
    recipe = make_recipe(input={"path": "s3://bucket/corpus", "id": None, "source": None})
    recipe_file = tmp_path / "recipe.yaml"
    options = f"{{n_workers: 1, memory_limit: 0, dashboard_address: '127.0.0.1:0', env: {{PASSWORD: {SECRET}}}}}"
    recipe_file.write_text(resolved_yaml(recipe) + f"cluster: {{kind: LocalCluster, options: {options}}}\n")
    told = [nextlong("run", recipe_file, "--only", "read")]
    told.append(nextlong("run", recipe_file, "--only", "read", "--input.part_rows", 7, status=2))
    told.append(nextlong("run", recipe_file, "--input.path", f"s3://{KEY}:{SECRET}@bucket/corpus", status=2))
    told.append(nextlong("run", recipe_file, f"--decontamination.path=https://h/a.jsonl?token={SECRET}", status=2))
    store.accept_known_keys_only(True)
    told.append(nextlong("run", recipe_file, "--only", "read", status=2))
    written = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert {"run.log", "recipe.resolved.yaml", "manifest.json", "stage.json", "summary.json"} <= {
        path.name for path in written
    }
    for data in [path.read_bytes() for path in written] + [(ran.stdout + ran.stderr).encode() for ran in told]:
        assert SECRET.encode() not in data
    assert "Credentials are taken from the environment" in told[-1].stderr
