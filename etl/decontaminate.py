"""The recipe's evaluation files in; the n-grams by which stage read knows contaminated documents, as arrays, out."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etl.inputs import Input, InputFile, identify, list_files, plan_splits, read_tables
from etl.lookup import loaded
from etl.parts import PartResult, read_array, write_array
from nextlong.config import Decontamination
from nextlong.decontamination import EvaluationNgrams, collect_ngrams
from nextlong.errors import UserError

log = logging.getLogger(__name__)

_GREATEST_FILES = 10_000  # a row's status, 16 bits, has room for each


def evaluation_files(settings: Decontamination) -> list[InputFile]:
    """The evaluation files, sorted by name. Raises UserError for what is missing or too many."""
    if not settings.path:
        return []
    with _own_names():
        files = list_files(Input(path=settings.path))
    if len(files) > _GREATEST_FILES:
        raise UserError(
            f"decontamination.path has {len(files):,} files, but documents are counted by file for at most "
            f"{_GREATEST_FILES:,}. Put the texts into fewer jsonl files."
        )
    return files


def fingerprint_settings(settings: Decontamination, files: Sequence[InputFile]) -> dict[str, Any]:
    """What decides which documents are contaminated; nothing without evaluation files."""
    if not settings.path:
        return {}
    with _own_names():
        facts = {"files": identify(files), "text": settings.columns, "ngram_words": settings.ngram_words}
    return {"decontamination": facts}


def collect_part(folder: Path, name: str, *, files: list[InputFile], settings: Decontamination) -> PartResult:
    """The task that reads all evaluation files once; `load` gives what it wrote."""
    num_texts = [0] * len(files)

    def counted(place: int) -> Iterator[str]:
        for text in _texts(files[place], settings):
            num_texts[place] += 1
            yield text

    with _own_names():
        ngrams, num_short = collect_ngrams(map(counted, range(len(files))), settings.ngram_words)
    write_array(folder / f"{name}.hashes.npy", ngrams.hashes)
    write_array(folder / f"{name}.files.npy", ngrams.files)
    return PartResult(
        files=[f"{name}.hashes.npy", f"{name}.files.npy"],
        rows=len(ngrams.hashes),
        values={"num_short": num_short, "num_texts": num_texts},
    )


def warn_of_useless(files: Sequence[InputFile], counts: dict[str, list[int]], settings: Decontamination) -> None:
    """Tell which evaluation files have no text, or texts too short to match anything; counts: of `collect_part`."""
    for file, num_texts, num_short in zip(files, counts["num_texts"], counts["num_short"], strict=True):
        if not num_texts:
            log.warning("decontamination: %s has no text, and matches no document", file.name)
        if num_short:
            log.warning(
                "decontamination: %s texts of %s are shorter than decontamination.ngram_words=%d words, and match "
                "no document",
                f"{num_short:,}",
                file.name,
                settings.ngram_words,
            )


def load(folder: Path, name: str, settings: Decontamination) -> EvaluationNgrams:
    """The n-grams that `collect_part` wrote, memory-mapped once a process."""
    paths = [folder / f"{name}.{each}.npy" for each in ("hashes", "files")]

    def mapped() -> EvaluationNgrams:
        return EvaluationNgrams(settings.ngram_words, *map(read_array, paths))

    return loaded(mapped, "evaluation", folder, settings.ngram_words, of=paths)


def _texts(file: InputFile, settings: Decontamination) -> Iterator[str]:
    """The texts of a file, each column in turn; a text file is one text, whatever the columns are called."""
    for column in settings.columns[:1] if file.format == "text" else settings.columns:
        wanted = Input(path=settings.path, text=column, max_document_chars=None)
        for split in plan_splits(wanted, [file]):
            for read in read_tables(split, wanted):
                yield from filter(None, read.table["text"].to_pylist())


@contextmanager
def _own_names() -> Iterator[None]:
    """Errors of reading evaluation files name this section's settings, not the corpus'."""
    try:
        yield
    except UserError as error:
        message = str(error).partition(" For files with another ending")[0]  # decontamination has no format
        raise UserError(re.sub(r"\binput\.(path|text)\b", r"decontamination.\1", message)) from error
