"""The published chunking rule as a script has it: a loop over lines, a chunk closed before it would be too long."""

from pathlib import Path

import pyarrow.parquet as pq


def chunk_corpus(path: Path, granularity_chars: int) -> list[list[str]]:
    """The chunks of each text of a Parquet file."""
    texts = pq.read_table(path, columns=["text"], use_threads=False)["text"].to_pylist()
    return [chunk(text, granularity_chars) for text in texts]


def chunk(text: str, granularity_chars: int) -> list[str]:
    """The chunks of a text; newlines are not counted, and a line that is longer stands alone."""
    chunks = []
    lines: list[str] = []
    length = 0
    for line in text.split("\n"):
        if length + len(line) > granularity_chars:
            if length > 0:
                chunks.append("\n".join(lines))
            lines = []
            length = 0
        lines.append(line)
        length += len(line)
    chunks.append("\n".join(lines))
    return chunks
