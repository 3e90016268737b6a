"""The tables of the stages, each stated once: Parquet schema, Dask meta and documentation are the same object."""

import pandas as pd
import pyarrow as pa

from nextlong.indexing import Vectors

DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.int64()),  # position in the input, counted before anything is dropped
        ("source_id", pa.string()),  # the user's id; the doc_id where the input has none
        ("text", pa.large_string()),
        ("source", pa.string()),
    ]
)
"""Stage read; the columns named in input.keep follow."""

CHUNKS = pa.schema(
    [
        ("chunk_id", pa.int64()),  # dense, ascending, consecutive within a document
        ("doc_id", pa.int64()),
        ("chunk_index", pa.int32()),  # place in its document, from 0
        ("text", pa.large_string()),
        ("joiner", pa.string()),  # "\n" or "": what follows the chunk in its document
        ("num_chars", pa.int32()),  # of the text, joiner not counted
        ("num_tokens", pa.int32()),  # stored token ids, joiner included
    ]
)
"""Stage chunk; token ids lie beside it in a flat file."""

DOCUMENT_CHUNKS = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("source_id", pa.string()),
        ("source", pa.string()),
        ("first_chunk_id", pa.int64()),
        ("num_chunks", pa.int32()),
        ("num_chars", pa.int64()),
        ("num_tokens", pa.int64()),
    ]
)
"""Stage chunk: one row a document, its chunks being first_chunk_id ... first_chunk_id + num_chunks - 1."""

NEGATIVES = pa.schema(
    [
        ("chunk_id", pa.int64()),  # the meta-chunk
        ("ids", pa.list_(pa.int64())),  # candidates that the rules left, nearest first
        ("scores", pa.list_(pa.float32())),
    ]
)
"""Stage mine, strategy nextlong: one row a meta-chunk."""

DOCUMENT_NEIGHBOURS = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("ids", pa.list_(pa.int64())),  # doc_ids of its nearest other documents, nearest first
        ("scores", pa.list_(pa.float32())),
    ]
)
"""Stage mine, strategies knn and iclm: one row a document."""

KEYWORDS = pa.schema([("doc_id", pa.int64()), ("keywords", pa.list_(pa.string()))])
"""Stage mine, strategy quest: one row a document."""

SEGMENT = pa.struct(
    [
        ("chunk_id", pa.int64()),
        ("role", pa.string()),  # meta, negative, repeat or document
        ("start", pa.int32()),  # tokens [start, end) of the long document
        ("end", pa.int32()),
        ("rank", pa.int32()),  # place among the candidates, 0 the nearest; -1 where nothing was looked up
        ("score", pa.float32()),  # similarity to the meta-chunk (a document's: to the one it was looked up for) or null
    ]
)

PLANS = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("doc_id", pa.int64()),
        ("source_id", pa.string()),
        ("source", pa.string()),
        ("outcome", pa.string()),  # kept, too_short or meta_too_long
        ("num_tokens", pa.int64()),  # what the document can reach
        ("num_candidates", pa.int64()),  # of all its meta-chunks
        ("skipped_top", pa.int64()),  # candidates passed over, by reason
        ("already_used", pa.int64()),
        ("over_used", pa.int64()),
        ("copy_in_document", pa.int64()),
        ("num_negatives", pa.int64()),  # taken, before truncation
        ("num_meta_chunks", pa.int64()),
        ("segments", pa.list_(SEGMENT)),  # empty unless kept
    ]
)
"""Stage interleave, first pass: one row a drawn meta-document, or a window of whole documents, and what it becomes."""

WINDOWS = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("source_id", pa.string()),  # of the first document
        ("source", pa.string()),  # of all documents, or mixed
        ("doc_ids", pa.list_(pa.int64())),  # in order; so are the next four
        ("ranks", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("first_chunk_ids", pa.list_(pa.int64())),
        ("num_chunks", pa.list_(pa.int32())),
    ]
)
"""Stage interleave, first pass of the methods compared with: one row a window of whole documents."""

LONG_DOCUMENTS = pa.schema(
    [
        ("sample_id", pa.int64()),  # place in the drawn order of meta-documents (windows); dropped ones leave gaps
        ("doc_id", pa.int64()),  # of the meta-document; of a window's first document
        ("source_id", pa.string()),
        ("source", pa.string()),
        ("input_ids", pa.list_(pa.uint32())),
        ("segments", pa.list_(SEGMENT)),
        ("similarity_by_rank", pa.list_(pa.float32())),  # mean score of the negatives of ranks 0, 1, 2-3, 4-7, ...
        ("meta_distances", pa.list_(pa.int32())),  # tokens between a meta-chunk's end and the next one's start
    ]
)
"""Stage interleave: one row a long document of exactly a target length."""

PACKED = pa.schema(
    [
        ("indices", pa.list_(pa.list_(pa.uint32(), 2))),  # [n, 2]: start, end of each long document in the sequence
        ("length", pa.int32()),
        ("domain", pa.string()),
        ("sample_ids", pa.list_(pa.int64())),
        ("input_ids", pa.list_(pa.uint32())),  # null where the sequence is one whole long document: read it there
    ]
)
"""Stage pack: one row a sequence."""


def embeddings(dimensions: int) -> pa.Schema:
    """Stage embed on a Dask dataframe: one vector a chunk. A run writes them as plain [n, d] arrays."""
    return pa.schema([("chunk_id", pa.int64()), ("embedding", pa.list_(pa.float16(), dimensions))])


def to_frame(table: pa.Table) -> pd.DataFrame:
    """The table as a pandas partition with Arrow-backed columns, nothing copied."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def to_table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """A pandas partition as a table of exactly this schema."""
    return pa.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata(None)


def meta(schema: pa.Schema) -> pd.DataFrame:
    """The empty partition that tells Dask the columns and their types."""
    return to_frame(schema.empty_table())


def vectors_of(embeddings: pd.DataFrame) -> Vectors:
    """The vectors [n, d] of a partition of the embed stage's dataframe."""
    column = pa.array(embeddings["embedding"])
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    vectors: Vectors = column.values.to_numpy(zero_copy_only=False).reshape(len(embeddings), -1)
    return vectors
