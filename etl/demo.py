"""The demo: the whole chain on real text that is on every machine, the docstrings of installed packages."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from etl import pipeline
from etl.docstrings import train_tokenizer, write_corpus
from etl.engine import Engine
from etl.inputs import Input
from etl.offline_model import offline_model
from etl.recipe import Recipe, resolved_yaml
from etl.show import show_long_document, stage_table
from etl.work import Work
from nextlong.config import Embedding, Synthesis
from nextlong.errors import UserError
from nextlong.folders import refuse_links_out

_CHARS = 6_800_000  # about 4,000 chunks of 2,048 characters: three minutes of embedding on two cores
_VOCABULARY = 16_384
_TARGET_LENGTH_TOKENS = 65_536
_NUM_SAMPLES = 24


def make_recipe(out: Path, num_documents: int | None) -> tuple[Recipe, str]:
    """Write corpus, tokenizer and recipe.yaml into `out`, export the offline model; the recipe, and what to say of it.

    num_documents: size of the corpus; None: what 4,000 chunks need. A folder that holds them already is used as it is.
    Raises UserError when it holds a demo of another size or a link that leads out of it, or the demo's packages are not
    installed.
    """
    if num_documents is not None and num_documents < 1:
        raise UserError(f"--documents is {num_documents}, but it must be at least 1.")
    refuse_links_out(out)
    corpus, tokenizer, recipe_file = (
        out / "docstrings.parquet",
        out / "tokenizer" / "tokenizer.json",
        out / "recipe.yaml",
    )
    made = out / "demo.json"
    wanted = {"documents": num_documents}
    if made.is_file() and json.loads(made.read_text()) != wanted:
        raise UserError(f"{out} holds a demo with other --documents. Give another folder: --out {out}-2.")
    model = offline_model()
    if not made.is_file():
        tokenizer.parent.mkdir(parents=True, exist_ok=True)
        write_corpus(corpus, num_documents=num_documents, num_chars=None if num_documents else _CHARS, seed=0)
        train_tokenizer(pq.read_table(corpus, columns=["text"])["text"].to_pylist(), tokenizer, _VOCABULARY)
    recipe = Recipe(
        input=Input(path=str(corpus.absolute()), id="id", source="source"),
        output=str((out / "work").absolute()),
        tokenizer=str(tokenizer.absolute()),
        embedding=Embedding(model=str(model)),
        synthesis=Synthesis(target_length_tokens=_TARGET_LENGTH_TOKENS, num_samples=_NUM_SAMPLES),
    )
    recipe_file.write_text(resolved_yaml(recipe))
    made.write_text(json.dumps(wanted))
    return recipe, _about(recipe, pq.read_metadata(corpus).num_rows)


def run(recipe: Recipe, engine: Engine) -> str:
    """Run the demo's recipe; the table of stages and one long document, as text."""
    job = pipeline.start(recipe, command="nextlong run " + str(Path(recipe.output).parent / "recipe.yaml"))
    summary = pipeline.run(job, engine)
    return f"\n{stage_table(summary)}\n\n{show_long_document(Work.open(job.work.path))}\n"


def what_next(out: Path) -> str:
    """What a user does after the demo."""
    return (
        f"Everything is in {out}: recipe.yaml made {out}/work; its sequences are in 7-packed and 6-long-documents.\n"
        f"For real work copy {out}/recipe.yaml and change three lines:\n"
        f"  input.path       your corpus: parquet, jsonl(.gz, .zst) or text files, local or s3://, hf://datasets/...\n"
        f"  tokenizer        the tokenizer of the model that you train (a folder or a hub id)\n"
        f"  embedding.model  a stronger model with an ONNX file, such as Alibaba-NLP/gte-modernbert-base\n"
        f"then: nextlong run recipe.yaml        another look: nextlong peek {out}/work\n"
        f"figures, on one page: nextlong report {out}/work    (pip install 'nextlong[report]' has plotly)\n"
        f"for a trainer: nextlong export {out}/work --format mds --out shards    (or parquet, arrow, megatron)"
    )


def _about(recipe: Recipe, num_documents: int) -> str:
    return (
        f"corpus     {num_documents:,} documents, the docstrings of installed packages: {recipe.input.path}\n"
        f"tokenizer  byte-level BPE of {_VOCABULARY:,} entries, trained on that corpus: {recipe.tokenizer}\n"
        f"model      all-MiniLM-L6-v2 (Apache-2.0), exported to ONNX: {recipe.embedding.model}\n"
        f"target     {_NUM_SAMPLES} long documents of {_TARGET_LENGTH_TOKENS:,} tokens\n"
    )
