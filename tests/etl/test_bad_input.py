"""What a user can get wrong ends in one clear sentence, or in a counted drop; nothing already done is lost."""

import dataclasses
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.inputs import Input
from etl.recipe import Recipe, load_recipe
from nextlong.config import Embedding, Indexing, Packing
from nextlong.errors import UserError
from tests.conftest import make_texts
from tests.etl.test_pipeline import data_files, run, table

MakeRecipe = Callable[..., Recipe]


def _parquet(path: Path, **columns: list[Any]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def _jsonl(path: Path, texts: list[Any]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def _refused(recipe: Recipe, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        run(recipe)
    assert "\n" not in str(caught.value)


@pytest.fixture
def on(make_recipe: MakeRecipe) -> MakeRecipe:
    """A recipe on another input: on(path, text="body")."""

    def make(path: str, **fields: Any) -> Recipe:
        return make_recipe(input={"path": path, "id": None, "source": None, "part_rows": None} | fields)

    return make


def test_a_missing_file(on: MakeRecipe, tmp_path: Path) -> None:
    _refused(on(str(tmp_path / "none.parquet")), r"none\.parquet does not exist")


def test_an_empty_folder(on: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _refused(on(str(tmp_path / "empty")), "empty is a folder without files")


def test_a_missing_column(on: MakeRecipe, tmp_path: Path) -> None:
    _refused(on(_parquet(tmp_path / "a.parquet", body=["x"])), r"a\.parquet.*text.*body")


def test_a_truncated_parquet_file(on: MakeRecipe, tmp_path: Path) -> None:
    path = Path(_parquet(tmp_path / "a.parquet", text=["x" * 1000]))
    path.write_bytes(path.read_bytes()[:-20])
    _refused(on(str(path)), r"a\.parquet")


def test_a_truncated_gzip_file(on: MakeRecipe, tmp_path: Path) -> None:
    data = gzip.compress("".join(json.dumps({"text": text}) + "\n" for _, text in make_texts(50)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    _refused(on(str(tmp_path / "a.jsonl.gz")), r"a\.jsonl\.gz")


def test_a_line_that_is_no_json_is_named(on: MakeRecipe, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "fine too"}\n{"text": broken\n')
    _refused(on(str(path)), r"a\.jsonl.*line 3")


def test_no_document_left(on: MakeRecipe, tmp_path: Path) -> None:
    _refused(on(_parquet(tmp_path / "a.parquet", text=[None, "", " \n"])), "no document is left of 3.*1 null_text")


def test_a_corpus_of_one_document(on: MakeRecipe, tmp_path: Path) -> None:
    _refused(
        on(_jsonl(tmp_path / "a.jsonl", ["A sentence of words. " * 40])), r"fall short of .*the best could reach [\d,]+"
    )


def test_documents_of_one_chunk(on: MakeRecipe, tmp_path: Path) -> None:
    _refused(on(_jsonl(tmp_path / "a.jsonl", ["one", "two", "three"])), "no document of the corpus has 2 chunks")


def test_a_corpus_too_small_for_the_target_says_what_it_could_reach(make_recipe: MakeRecipe) -> None:
    _refused(make_recipe(synthesis={"target_length_tokens": 10_000_000}), r"the best could reach \d+,\d+ tokens\)")


def test_meta_documents_too_long_for_the_target(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(synthesis={"target_length_tokens": 20})
    _refused(recipe, "are longer than synthesis.max_meta_ratio.*raise the target")


def test_odd_texts_are_kept_or_counted(on: MakeRecipe, tmp_path: Path) -> None:
    texts = [text for _, text in make_texts(60)]
    path = tmp_path / "a.jsonl"
    odd = [
        '{"text": "a lone \\ud800 surrogate"}',
        json.dumps({"text": "nul \x00 byte"}),
        '{"text": null}',
        '{"text": ""}',
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "\n".join(odd))
    work, summary = run(on(str(path)))
    account = summary["stages"]["read"]["account"]
    assert account["documents"]["dropped"] == {"null_text": 1, "empty_text": 1}
    assert account["notes"] == {"documents_with_replaced_characters": 1}
    assert table(work, "read")["text"].to_pylist()[60:] == ["a lone \ufffd surrogate", "nul \x00 byte"]


@pytest.mark.long
def test_one_line_of_twenty_megabytes(on: MakeRecipe, tmp_path: Path) -> None:
    texts = [text for _, text in make_texts(60)] + ["words without end " * 1_150_000]
    recipe = on(_jsonl(tmp_path / "a.jsonl", texts))
    run(recipe, only="read")
    work, summary = run(recipe, only="chunk")
    assert summary["stages"]["chunk"]["account"]["chars"]["kept"] == sum(map(len, texts)) > 20_000_000
    assert max(table(work, "chunk")["num_chars"].to_pylist()) <= recipe.chunking.granularity_chars


def test_a_model_folder_without_model(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    _refused(make_recipe(embedding={"model": str(tmp_path / "model")}), r"model\.onnx")


def test_a_model_folder_without_tokenizer(make_recipe: MakeRecipe, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("model.onnx", "config.json"):
        (tmp_path / "model" / name).write_bytes((model_folder / name).read_bytes())
    _refused(make_recipe(embedding={"model": str(tmp_path / "model")}), r"tokenizer\.json")


def test_more_dimensions_than_the_model_has(make_recipe: MakeRecipe) -> None:
    _refused(make_recipe(embedding={"dimensions": 64}), "embedding.dimensions is 64.*32")


def test_a_factory_that_faiss_does_not_know(make_recipe: MakeRecipe) -> None:
    _refused(dataclasses.replace(make_recipe(), index=Indexing(factory="IVFx,Foo")), "index.factory is 'IVFx,Foo'")


def test_more_lists_than_chunks(make_recipe: MakeRecipe) -> None:
    _refused(dataclasses.replace(make_recipe(), index=Indexing(factory="IVF4096,Flat")), "4,096 inverted lists, but")


def test_an_output_folder_of_other_files(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("important")
    _refused(make_recipe(), "holds other files, and is no work folder")
    assert (tmp_path / "work" / "thesis.tex").read_text() == "important"


def test_an_output_that_is_a_file(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("important")
    _refused(make_recipe(), "is a file")


def test_a_folder_to_reuse_that_is_none(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    from etl import pipeline

    with pytest.raises(UserError, match="is no work folder of a run"):
        pipeline.start(make_recipe(), reuse=tmp_path)


def test_a_sequence_that_is_no_multiple(make_recipe: MakeRecipe) -> None:
    with pytest.raises(UserError, match=r"no multiple of synthesis\.target_length_tokens"):
        dataclasses.replace(make_recipe(), packing=Packing(sequence_length_tokens=1500))


def test_an_error_keeps_what_is_done(make_recipe: MakeRecipe) -> None:
    work, _ = run(make_recipe(), only="read")
    run(make_recipe(), only="chunk")
    before = {path: path.read_bytes() for path in work.path.rglob("part-*")}
    _refused(dataclasses.replace(make_recipe(), index=Indexing(factory="IVF4096,Flat")), "4,096 inverted lists")
    assert before == {path: path.read_bytes() for path in before}
    whole, _ = run(make_recipe())
    fresh, _ = run(make_recipe("fresh"))
    assert data_files(whole) == data_files(fresh)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("synthesis: {target_length_tokens: 64, sed: 1}", "sed"),
        ("synthesis: {target_length_tokens: many}", r"synthesis\.target_length_tokens.*many"),
        ("synthesis: {target_length_tokens: 0}", r"synthesis\.target_length_tokens is 0"),
        ("synthesis: {target_length_tokens: 64, budget: huge}", r"synthesis\.budget.*huge"),
        ("synthesis: [1, 2]", "synthesis"),
        ("strange: 1", "strange"),
        ("synthesis: {target_length_tokens: 64", "not valid"),
    ],
)
def test_a_recipe_that_is_not_valid(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"input: {{path: a.parquet}}\noutput: work\ntokenizer: t\nembedding: {{model: m}}\n{change}\n")
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(str(path))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("input: {path: 's3://key:S3CRET@bucket/x'}", r"input\.path has an address, s3://\.\.\., with a password"),
        ("input: {path: 's3://key:S3/CR+ET@bucket/x'}", "with a password, key or token in it"),
        ("input: {path: ['a', 'https://S3CRET@host/x']}", "AWS_SECRET_ACCESS_KEY.*fsspec"),
        ("input: {path: 'https://host/x.jsonl?X-Amz-Signature=S3CRET'}", "with a password, key or token in it"),
        ("input: {path: {a: 's3://key:S3CRET@bucket/x'}}", r"input\.path is .*must be text or a list of texts"),
        ("input: 's3://key:S3CRET@bucket/x'", "input is a text, but it must be settings"),
        ("input: {path: a, storage_options: {secret: S3CRET}}", r"input\.storage_options is no setting"),
        ("cluster: S3CRET", "cluster is a text, but it must be settings"),
        ("cluster: {kind: SSHCluster, options: {password: S3CRET", r"not valid YAML: .*, line \d+, column \d+$"),
        ("cluster: {kind: SSHCluster, options: [S3CRET]}", r"cluster must be null, or have kind \(one of LocalCluster"),
        ("cluster: {kind: SSHCluster, options: {password: S3CRET}, wrkers: 1}", r"cluster\.wrkers is no setting"),
        ("cluster: {kind: SSHCluster, options: {password: S3CRET}, workers: 0}", r"cluster\.workers is 0, but it must"),
        ("cluster: {kind: SSHCluster, options: {a: S3CRET}, wait_minutes: 0}", r"cluster\.wait_minutes is 0\.0, but "),
    ],
)
def test_a_secret_in_a_recipe_is_refused_or_passed_on_and_never_repeated(
    tmp_path: Path, change: str, message: str
) -> None:
    path = tmp_path / "recipe.yaml"
    start = "" if change.startswith("input") else "input: {path: a.parquet}\n"
    path.write_text(f"{start}output: work\ntokenizer: t\nsynthesis: {{target_length_tokens: 64}}\n{change}\n")
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(str(path))
    assert not re.search("S3CRET|CR.ET", str(caught.value))
    with pytest.raises(UserError) as caught:
        load_recipe(str(path), ["--input.storage_options.secret=S3CRET", "--unknown=S3CRET"])
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/2024-01-01T12:00:00@x.jsonl",
        "hf://datasets/owner/name@refs/convert/parquet",
        "github://owner:name@main/docs",
        "http://host:8080/a@b.jsonl",
        "sftp://user@host:22/x@y.jsonl",
        "https://host/a.jsonl?download=true",
        "s3://bucket/part-?.jsonl",
        "/data/a:b@c.jsonl",
    ],
)
def test_an_address_without_password_is_not_taken_for_one(address: str) -> None:
    assert Input(path=address).addresses == [address]


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(UserError, match="there is no such file"):
        load_recipe("none.yaml")


def test_the_least_recipe_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "input:     {path: corpus/*.parquet, text: text, id: id, source: source}\n"
        "output:    work/\ntokenizer: path-or-hub-id\nembedding: {model: path-or-hub-id}\n"
        "synthesis: {target_length_tokens: 131072, num_samples: 32000, seed: 0}\n"
    )
    recipe = load_recipe(str(path), ["--synthesis.seed", "7", "--mining.near_duplicate_similarity", "null"])
    assert (recipe.synthesis.seed, recipe.synthesis.num_samples) == (7, 32000)
    assert recipe.mining.near_duplicate_similarity is None
    assert recipe.embedding == Embedding(model="path-or-hub-id")
