"""Which documents are extended, in which order, and how they are divided into parts: by the recipe and corpus alone."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from etl.schemas import to_frame
from etl.work import StageFolder, Work
from nextlong.config import Synthesis
from nextlong.errors import UserError
from nextlong.sampling import draw_order

_PART_TOKENS = 16_000_000  # of long documents: some ten seconds of mining, 64 MB of token ids
_LEAST_PARTS = 16  # so that small runs keep several workers busy


def draws(work: Work, synthesis: Synthesis) -> pd.DataFrame:
    """The eligible documents in drawn order (columns of schemas.DOCUMENT_CHUNKS); the index is the sample_id.

    Raises UserError when no document has enough chunks.
    """
    documents = all_documents(work["chunk"])
    order = draw_order(
        documents["num_chunks"].to_numpy(), min_meta_chunks=synthesis.min_meta_chunks, seed=synthesis.seed
    )
    if not len(order):
        raise UserError(
            f"no document of the corpus has {synthesis.min_meta_chunks} chunks, so none can be extended. Lower "
            f"chunking.granularity_chars or synthesis.min_meta_chunks, or give longer documents."
        )
    return documents.iloc[order].reset_index(drop=True)


def all_documents(chunks: StageFolder) -> pd.DataFrame:
    """The documents of a finished chunk stage, in doc_id order."""
    tables = [pq.read_table(path.with_suffix(".documents.parquet")) for path, _ in chunks.tables()]
    return to_frame(pa.concat_tables(tables))


def minable(documents: pd.DataFrame, synthesis: Synthesis) -> pd.DataFrame:
    """Documents that are not too long for the target from the start, as budget="exact" demands."""
    if synthesis.budget == "paper":
        return documents
    return documents[documents["num_tokens"] <= synthesis.max_meta_ratio * synthesis.target_length_tokens]


def first_draws(drawn: pd.DataFrame, synthesis: Synthesis, num_wanted: int | None = None) -> int:
    """How many draws hold the wanted number of minable documents (None: num_samples); all if there are fewer."""
    wanted = synthesis.num_samples if num_wanted is None else num_wanted
    places = minable(drawn, synthesis).index
    return len(drawn) if wanted is None or wanted >= len(places) else int(places[wanted - 1]) + 1


def draw_ranges(num_draws: int, num_eligible: int, synthesis: Synthesis) -> list[tuple[int, int]]:
    """The draws [first, last) of each part; the size of a part follows from the recipe and the corpus alone."""
    size = synthesis.docs_per_part
    if size is None:
        wanted = min(num_eligible, synthesis.num_samples or num_eligible)
        most = max(1, _PART_TOKENS // synthesis.target_length_tokens)
        size = min(most, -(-wanted // _LEAST_PARTS))
    return [(first, min(first + size, num_draws)) for first in range(0, num_draws, size)]
