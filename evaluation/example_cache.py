"""Examples asked for in; the same from a folder, where they were made before, or else made and kept there, out."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from evaluation.example import Example
from evaluation.tasks import examples

log = logging.getLogger(__name__)

_FORMAT_VERSION = 1  # of the files and of what the tasks write: examples of another are made again


def cached_examples(
    folder: Path,
    task: str,
    tokenizer: FastTokenizer,
    length_tokens: int,
    *,
    tokenizer_sha256: str,
    number: int,
    seed: int,
    depths: Sequence[float],
    hay: str | None,
) -> list[Example]:
    """What `evaluation.tasks.examples` makes, from a file of the folder if one is whole.

    tokenizer_sha256: of its tokenizer.json. A file is named by all that decides its examples, written aside and
    renamed; a damaged one is made again. A folder that cannot be written is a warning.
    """
    hashed_hay = None if hay is None else hashlib.sha256(hay.encode()).hexdigest()
    asked = [_FORMAT_VERSION, tokenizer_sha256, task, length_tokens, number, seed, list(depths), hashed_hay]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]
    path = folder / f"{task}-{length_tokens}-{key}.jsonl"
    found = _read(path)
    if found is None:
        found = examples(task, tokenizer, length_tokens, number=number, seed=seed, depths=depths, hay=hay)
        _keep(path, found)
    return found


def _read(path: Path) -> list[Example] | None:
    """The examples of a file; None: there is none, or it is not as it was written."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        if json.loads(head) != _head(body):
            raise ValueError("its checksum is another")
        return [_example(json.loads(line)) for line in body.splitlines()]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("the examples in %s are made again: the file is damaged (%s)", path, error)
        return None


def _keep(path: Path, found: Sequence[Example]) -> None:
    body = "".join(json.dumps(each._asdict()) + "\n" for each in found).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".made-", delete=False) as aside:
            try:
                aside.write(json.dumps(_head(body)).encode() + b"\n" + body)
                aside.flush()
                os.fsync(aside.fileno())
                os.replace(aside.name, path)
            except BaseException:
                Path(aside.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        log.warning("the examples of this evaluation are not kept for the next: %s (%s)", path, error)


def _head(body: bytes) -> dict[str, Any]:
    return {"format": _FORMAT_VERSION, "sha256": hashlib.sha256(body).hexdigest()}


def _example(row: dict[str, Any]) -> Example:
    return Example(**row | {"answers": tuple(row["answers"])})
