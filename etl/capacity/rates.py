"""Seconds of one core a unit of work, as `measure` finds them or a file of another machine has them."""

import dataclasses
import json
from pathlib import Path

from nextlong.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds of one core a unit of work, measured on one machine."""

    machine: str
    measured_with: dict[str, str]
    """What the rates depend on: model, tokenizer, granularity, dimensions."""
    memory_bytes: int
    start: float
    """Importing the stages in a new worker."""
    load_tokenizer: float
    load_model: float
    part: float
    """Marker of a finished part."""
    written_byte: float
    """Writing and sha256."""
    cold_read: float
    """A row that is not in memory, in random order."""
    read_char: float
    """Both passes of stage read."""
    known_document: float
    """Finding copies, and the table of all documents, in the driver."""
    chunked_char: float
    embedded_chunk: float | None
    """None: no model, or one that a GPU ran."""
    embedded_chunk_on_gpu: float | None
    """Seconds of a GPU; None: there was none."""
    product: float
    """Of two numbers, in exact search for many queries at once, with one neighbour kept: training, finding lists."""
    product_of_few: float
    """The same for 256 queries at once, which some BLAS libraries multiply more slowly: recall."""
    searched_number: float
    """In exact search with 512 neighbours kept."""
    scanned_number: dict[str, float]
    """A number of a vector in an inverted list, by codec (Flat, SQ8, PQ)."""
    added_number: dict[str, float]
    """Encoding it, by codec."""
    pq_training_number: float
    """A number of a vector that a product quantizer is trained on."""
    graph_number: float
    """Finding the lists of a query by HNSW over 4,096 of them, a dimension."""
    candidate: float
    """Scoring it again, the rules, and writing it."""
    fetched_number: float
    """A number of a stored embedding that a batch of queries needs."""
    sketched_char: float
    words_char: float
    """BM25 index."""
    words_query: float
    words_query_text: float
    """A text of the index, for every query: its cost beyond `words_query`."""
    keyword_char: float
    compared_char: float
    """Looking for n-grams of evaluation texts."""
    generated_document: float
    """synthesis.query_model; 0: not set."""
    planned_segment: float
    filled_token: float
    used_segment: float
    """Counting reuse, in the driver."""
    gathered_document: dict[str, float]
    """By strategy: standard, knn and iclm (at 50 neighbours), quest."""
    averaged_number: float
    """Vectors of whole documents."""
    packed_token: float
    """Where several long documents make a sequence."""


def read_rates(path: Path) -> Rates:
    """Rates that `plan` wrote. Raises UserError for a file that is missing or holds something else."""
    try:
        return Rates(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"--rates {path} cannot be used: {error}. Write such a file with nextlong plan --write-rates FILE."
        ) from error


def keep_rates(path: Path, rates: Rates) -> None:
    """Keep rates for `read_rates`. Raises UserError where the file cannot be written."""
    try:
        path.write_text(json.dumps(dataclasses.asdict(rates), indent=1) + "\n")
    except OSError as error:
        raise UserError(f"--write-rates {path} cannot be written: {error}. Give a file in a folder that is.") from error
