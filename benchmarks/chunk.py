"""Chunk and tokenize, against the tokenizers library on the same chunk texts.

python -m benchmarks.chunk --corpus CORPUS.parquet --tokenizer TOKENIZER
"""

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import corpus_arguments, medians, report
from etl.chunk import chunk_documents
from nextlong.chunking import chunk_document
from nextlong.config import Chunking
from nextlong.tokenizing import Tokenizer, resolve_tokenizer


def main() -> None:
    """Print the ratios."""
    options = corpus_arguments(__doc__).parse_args()
    from tokenizers import Tokenizer as FastTokenizer

    texts = pq.read_table(options.corpus, columns=["text"])["text"].combine_chunks()
    documents = pa.table(
        {
            "doc_id": pa.array(range(len(texts)), pa.int64()),
            "source_id": pa.array(map(str, range(len(texts)))),
            "text": texts.cast(pa.large_string()),
            "source": pa.array([""] * len(texts)),
        }
    )
    tokenizer = Tokenizer.load(options.tokenizer)
    raw = FastTokenizer.from_file(str(resolve_tokenizer(options.tokenizer)))
    strings = texts.to_pylist()
    chunks = [chunk_document(text) for text in strings]
    pieces = [text + joiner for each in chunks for text, joiner in zip(*each, strict=True)]
    part = chunk_documents(documents, tokenizer, Chunking())
    print(f"{len(strings):,} documents, {sum(map(len, strings)):,} characters, {part.chunks.num_rows:,} chunks")
    seconds = medians(
        {
            "ours": lambda: chunk_documents(documents, tokenizer, Chunking()),
            "tokenizers encode_batch, chunks given": lambda: raw.encode_batch(pieces, add_special_tokens=False),
            "tokenizers encode_batch_fast, chunks given": lambda: raw.encode_batch_fast(
                pieces, add_special_tokens=False
            ),
            "our chunking alone": lambda: [chunk_document(text) for text in strings],
            "the published rule alone": lambda: [chunk_document(text, long_paragraphs="keep") for text in strings],
        },
        options.repeats,
    )
    print(report(seconds, len(part.tokens.ids), "tokens"))


if __name__ == "__main__":
    main()
