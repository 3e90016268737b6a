"""The demo's corpus: the docstrings of installed packages, one document a module, read without importing anything."""

import ast
import importlib.util
import inspect
import logging
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from etl.parts import write_table, written_aside

log = logging.getLogger(__name__)

PACKAGES = ("dask", "distributed", "numpy", "pandas", "pyarrow", "torch", "transformers")
STANDARD_LIBRARY = "python"
_LEAST_CHARS = 200  # a module with less says nothing
_SKIPPED_FOLDERS = frozenset(("test", "tests", "testing", "_vendor", "site-packages", "dist-packages"))
_SCHEMA = pa.schema([("id", pa.large_string()), ("text", pa.large_string()), ("source", pa.large_string())])


class DocstringDocument(NamedTuple):
    """One module."""

    source_id: str
    """Dotted name."""
    text: str
    source: str
    """Its package, or "python" for the standard library."""


class _Module(NamedTuple):
    source: str
    root: Path
    path: Path


def docstring_documents() -> Iterator[DocstringDocument]:
    """The documents of all packages that are installed, in a fixed order.

    Left out are tests, modules with less than 200 characters of docstrings, and files that do not parse; how many of
    these is logged.
    """
    return _documents(_modules())


def write_corpus(path: Path, *, num_documents: int | None, num_chars: int | None, seed: int) -> int:
    """Write a seeded choice of the documents as Parquet (id, text, source), sorted; returns how many.

    num_documents, num_chars: where to stop; None: no bound. The packages take turns while they last, so that a small
    corpus has something of each. Only what is chosen is parsed.
    """
    modules = list(_modules())
    by_source: dict[str, list[_Module]] = defaultdict(list)
    for place in np.random.default_rng(seed).permutation(len(modules)).tolist():
        by_source[modules[place].source].append(modules[place])
    chosen: list[DocstringDocument] = []
    chars = 0
    for document in _in_turn([_documents(by_source[source]) for source in sorted(by_source)]):
        if len(chosen) == num_documents or (num_chars is not None and chars >= num_chars):
            break
        chosen.append(document)
        chars += len(document.text)
    chosen.sort(key=lambda each: (each.source, each.source_id))
    rows = [dict(zip(_SCHEMA.names, document, strict=True)) for document in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, pa.Table.from_pylist(rows, schema=_SCHEMA), rows_per_group=64)
    return len(chosen)


def train_tokenizer(texts: Iterable[str], path: Path, vocab_size: int) -> None:
    """Train a byte-level BPE without prefix space, and write it as tokenizer.json; the same texts give the same bytes.

    Its only special token is <|endoftext|>, id 0.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        tokenizer.save(str(aside))


def _modules() -> Iterator[_Module]:
    roots = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            roots.append((package, Path(spec.origin).parent))
    for source, root in [*roots, (STANDARD_LIBRARY, Path(sysconfig.get_paths()["stdlib"]))]:
        for path in sorted(root.rglob("*.py")):
            if not _SKIPPED_FOLDERS.intersection(path.relative_to(root).parts):
                yield _Module(source, root, path)


def _documents(modules: Iterable[_Module]) -> Iterator[DocstringDocument]:
    num_broken = 0
    try:
        for module in modules:
            try:
                text = module_text(module.path.read_bytes())
            except (SyntaxError, ValueError, RecursionError):  # templates, other versions' syntax, null bytes
                num_broken += 1
                continue
            if len(text) >= _LEAST_CHARS:
                yield DocstringDocument(_dotted_name(module), text, module.source)
    finally:
        if num_broken:
            log.info("docstrings: %d files do not parse and are left out", num_broken)


def _in_turn(streams: list[Iterator[DocstringDocument]]) -> Iterator[DocstringDocument]:
    while streams:
        for stream in list(streams):
            document = next(stream, None)
            if document is None:
                streams.remove(stream)
            else:
                yield document


def _dotted_name(module: _Module) -> str:
    parts = module.path.relative_to(module.root).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if module.source == STANDARD_LIBRARY else (module.source, *parts))


def module_text(code: bytes) -> str:
    """The docstrings of a module: its own, then each class's and function's under its qualified name.

    Raises SyntaxError, ValueError or RecursionError for what does not parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "invalid escape sequence", of two categories by version
        tree = ast.parse(code)
    sections = [(ast.get_docstring(tree) or "").strip(), *_sections(tree, "")]
    text = "\n\n".join(section for section in sections if section)
    return text.encode("utf-8", "replace").decode("utf-8")  # a docstring may spell half a surrogate pair


def _sections(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(child, clean=False)
            if docstring and docstring.strip():
                yield f"{prefix}{child.name}\n{inspect.cleandoc(docstring)}"
            yield from _sections(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _sections(child, prefix)
