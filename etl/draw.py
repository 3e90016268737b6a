"""Which documents are extended, to which length, in which order and parts: by the recipe and the corpus alone.

Memory: 36 bytes a document of the corpus, and 16 for each that may be extended.
"""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl import quarantine
from etl.lookup import documents_of
from etl.schemas import DOCUMENT_CHUNKS
from etl.work import StageFolder, Work
from nextlong.config import Synthesis
from nextlong.errors import UserError
from nextlong.sampling import draw_lengths, draw_order

_PART_TOKENS = 16_000_000  # of long documents: some ten seconds of mining, 64 MB of token ids
_LEAST_PARTS = 16  # so that small runs keep several workers busy
_NUMBERS = ("doc_id", "first_chunk_id", "num_chunks", "num_chars", "num_tokens")
_NAMES = ("source_id", "source")


@dataclasses.dataclass(frozen=True)
class Strand:
    """The long documents of one target length, and the drawn documents that may become one; no two share a document."""

    target_length_tokens: int
    num_samples: int | None
    """Long documents wanted; None: as many as there are."""
    synthesis: Synthesis
    prefix: str = "part"
    """Begins the names of the strand's parts."""
    documents: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    """All usable documents, as `usable_documents` gives them."""
    places: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    """int64 [num_draws], the rows of the documents that are drawn for this strand, in drawn order."""
    sample_ids: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    """int64 [num_draws], of each draw its place in the drawn order of all strands."""

    def drawn(self, first: int, last: int) -> pd.DataFrame:
        """The documents of the draws first ... last - 1, with their sample_id."""
        rows = self.documents.iloc[self.places[first:last]].reset_index(drop=True)
        return rows.assign(sample_id=self.sample_ids[first:last])

    def minable(self, documents: pd.DataFrame) -> pd.DataFrame:
        """Of some documents those not too long for the target from the start, as budget="exact" demands."""
        return documents[self._are_minable(documents["num_tokens"].to_numpy(np.int64))]

    def minable_draws(self, num_draws: int) -> NDArray[np.int64]:
        """Of the first draws those of minable documents, in order."""
        places = self.places[:num_draws]
        return np.flatnonzero(self._are_minable(self.documents["num_tokens"].to_numpy(np.int64)[places]))

    def _are_minable(self, num_tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self.synthesis.budget == "paper":
            return np.ones(len(num_tokens), np.bool_)
        fits: NDArray[np.bool_] = num_tokens <= self.synthesis.max_meta_ratio * self.target_length_tokens
        return fits

    def first_draws(self, num_wanted: int | None = None) -> int:
        """How many draws hold so many minable documents (None: num_samples); all if there are fewer."""
        wanted, all_draws = self.num_samples if num_wanted is None else num_wanted, len(self.places)
        minable = self.minable_draws(all_draws)
        return all_draws if wanted is None or wanted >= len(minable) else int(minable[wanted - 1]) + 1

    def ranges(self, num_draws: int, num_eligible: int | None = None) -> list[tuple[int, int]]:
        """The draws [first, last) of each part; the size of a part follows from the recipe and the corpus alone.

        num_eligible: how many there are in all; None: the drawn documents.
        """
        size = self.synthesis.docs_per_part
        if size is None:
            there = len(self.places) if num_eligible is None else num_eligible
            wanted = min(there, self.num_samples or there)
            most = max(1, _PART_TOKENS // self.target_length_tokens)
            size = max(1, min(most, -(-wanted // _LEAST_PARTS)))
        return [(first, min(first + size, num_draws)) for first in range(0, num_draws, size)]


def strands(work: Work, synthesis: Synthesis) -> list[Strand]:
    """The drawn documents of a work folder, by target length in the recipe's order.

    Raises UserError when no document has enough chunks.
    """
    documents = usable_documents(work)
    order = draw_order(
        documents["num_chunks"].to_numpy(), min_meta_chunks=synthesis.min_meta_chunks, seed=synthesis.seed
    )
    if not len(order):
        raise UserError(
            f"no document of the corpus has {synthesis.min_meta_chunks} chunks, so none can be extended. Lower "
            f"chunking.granularity_chars or synthesis.min_meta_chunks, or give longer documents."
        )
    lengths = draw_lengths(synthesis, len(order))
    draws = [np.flatnonzero(lengths == number) for number in range(len(synthesis.targets))]
    return [
        dataclasses.replace(strand, documents=documents, places=order[own], sample_ids=own)
        for strand, own in zip(empty_strands(synthesis), draws, strict=True)
    ]


def empty_strands(synthesis: Synthesis) -> list[Strand]:
    """The strands without their documents: targets, numbers and names of parts."""
    lengths = zip(synthesis.targets, synthesis.wanted, strict=True)
    several = len(synthesis.targets) > 1
    return [Strand(target, wanted, synthesis, f"part-{target}" if several else "part") for target, wanted in lengths]


def usable_documents(work: Work) -> pd.DataFrame:
    """The documents of the chunk stage without those that a later stage has quarantined, in doc_id order."""
    documents, poisoned = all_documents(work["chunk"]), quarantine.doc_ids(work)
    return documents[~documents["doc_id"].isin(poisoned)].reset_index(drop=True) if poisoned else documents


def all_documents(chunks: StageFolder) -> pd.DataFrame:
    """The documents of a finished chunk stage, in doc_id order: all columns that are numbers, 36 bytes a document."""
    number = (chunks.manifest() or {})["account"]["documents"]["kept"]
    columns = {name: np.empty(number, DOCUMENT_CHUNKS.field(name).type.to_pandas_dtype()) for name in _NUMBERS}
    first = 0
    for path, _ in chunks.tables():
        table = pq.read_table(documents_of(path), columns=list(_NUMBERS))
        for name, column in columns.items():
            column[first : first + table.num_rows] = table[name]
        first += table.num_rows
    return pd.DataFrame(columns, copy=False)


def with_names(documents: pd.DataFrame, chunks: StageFolder) -> pd.DataFrame:
    """Some documents with chunks, in any order, with their source_id and source.

    Reads the tables in which they stand; holds one of them at a time.
    """
    tables = chunks.tables()
    ends = np.cumsum([rows for _, rows in tables])
    places = np.searchsorted(ends, documents["first_chunk_id"].to_numpy(np.int64), "right")
    doc_ids = documents["doc_id"].to_numpy(np.int64)
    names = {name: np.empty(len(documents), object) for name in _NAMES}
    for place in np.unique(places).tolist():
        table = pq.read_table(documents_of(tables[place][0]), columns=["doc_id", *_NAMES])
        here = np.flatnonzero(places == place)
        found = table.take(np.searchsorted(table["doc_id"].to_numpy(), doc_ids[here]))
        for name in _NAMES:
            names[name][here] = found[name].to_pylist()
    return documents.assign(**names)
