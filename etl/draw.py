"""Which documents are extended, to which length, in which order and parts: by the recipe and the corpus alone."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from etl.lookup import documents_of
from etl.quarantine import quarantined
from etl.schemas import to_frame
from etl.work import StageFolder, Work
from nextlong.config import Synthesis
from nextlong.errors import UserError
from nextlong.sampling import draw_lengths, draw_order

_PART_TOKENS = 16_000_000  # of long documents: some ten seconds of mining, 64 MB of token ids
_LEAST_PARTS = 16  # so that small runs keep several workers busy


@dataclasses.dataclass(frozen=True)
class Strand:
    """The long documents of one target length, and the drawn documents that may become one; no two share a document."""

    target_length_tokens: int
    num_samples: int | None
    """Long documents wanted; None: as many as there are."""
    synthesis: Synthesis
    prefix: str = "part"
    """Begins the names of the strand's parts."""
    drawn: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    """Columns of schemas.DOCUMENT_CHUNKS, and sample_id, the place in the drawn order of all; the index counts rows."""

    def minable(self, documents: pd.DataFrame) -> pd.DataFrame:
        """Of some documents those not too long for the target from the start, as budget="exact" demands."""
        if self.synthesis.budget == "paper":
            return documents
        return documents[documents["num_tokens"] <= self.synthesis.max_meta_ratio * self.target_length_tokens]

    def first_draws(self, num_wanted: int | None = None) -> int:
        """How many draws hold so many minable documents (None: num_samples); all if there are fewer."""
        wanted = self.num_samples if num_wanted is None else num_wanted
        places = self.minable(self.drawn).index
        return len(self.drawn) if wanted is None or wanted >= len(places) else int(places[wanted - 1]) + 1

    def ranges(self, num_draws: int, num_eligible: int | None = None) -> list[tuple[int, int]]:
        """The draws [first, last) of each part; the size of a part follows from the recipe and the corpus alone.

        num_eligible: how many there are in all; None: the drawn documents.
        """
        size = self.synthesis.docs_per_part
        if size is None:
            there = len(self.drawn) if num_eligible is None else num_eligible
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
    drawn = documents.iloc[order].assign(sample_id=np.arange(len(order)))
    lengths = draw_lengths(synthesis, len(order))
    return [
        dataclasses.replace(strand, drawn=drawn[lengths == number].reset_index(drop=True))
        for number, strand in enumerate(empty_strands(synthesis))
    ]


def empty_strands(synthesis: Synthesis) -> list[Strand]:
    """The strands without their documents: targets, numbers and names of parts."""
    lengths = zip(synthesis.targets, synthesis.wanted, strict=True)
    several = len(synthesis.targets) > 1
    return [Strand(target, wanted, synthesis, f"part-{target}" if several else "part") for target, wanted in lengths]


def usable_documents(work: Work) -> pd.DataFrame:
    """The documents of the chunk stage without those that a later stage has quarantined, in doc_id order."""
    documents, poisoned = all_documents(work["chunk"]), [each["doc_id"] for each in quarantined(work)]
    return documents[~documents["doc_id"].isin(poisoned)].reset_index(drop=True) if poisoned else documents


def all_documents(chunks: StageFolder) -> pd.DataFrame:
    """The documents of a finished chunk stage, in doc_id order."""
    tables = [pq.read_table(documents_of(path)) for path, _ in chunks.tables()]
    return to_frame(pa.concat_tables(tables))
