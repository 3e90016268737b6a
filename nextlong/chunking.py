"""Documents in, chunks out: consecutive pieces cut at line boundaries (Sec. 3.1.1, Algorithm 1 lines 2-20)."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’)\]]*\s+|[。！？]")
_SPACE = re.compile(r"\s")
_NO_SPACE = re.compile(r"\S")


class Chunks(NamedTuple):
    """The chunks of one document and what follows each: "\\n" where a newline stood between two chunks, else ""."""

    texts: list[str]
    joiners: list[str]

    @property
    def num_chars(self) -> int:
        """Characters that the chunks and their joiners hold; below the document's length only under "keep"."""
        return sum(map(len, self.texts)) + sum(map(len, self.joiners))


def chunk_text(
    text: str, *, granularity_chars: int = 2048, long_paragraphs: Literal["split", "keep"] = "split"
) -> list[str]:
    """The texts of a document's chunks; `chunk_document` also gives the joiners that restore the document."""
    return chunk_document(text, granularity_chars=granularity_chars, long_paragraphs=long_paragraphs).texts


def chunk_document(
    text: str, *, granularity_chars: int = 2048, long_paragraphs: Literal["split", "keep"] = "split"
) -> Chunks:
    """Cut a document at newlines into chunks of at most `granularity_chars` characters (s of Sec. 5.3).

    "split": chunks and joiners concatenated are the document, and no chunk is longer than the granularity, newlines
    counted; a paragraph above it is cut at its last sentence end that fits, else at its last space, else anywhere.
    "keep": the published chunker, chunk for chunk. It counts no newlines, passes a long paragraph whole, and loses
    blank lines that stand before a long paragraph with nothing but blank lines before them.

    Ours differs from the paper by "split" being the default.
    """
    if long_paragraphs == "keep":
        return _published_chunks(text, granularity_chars)
    return _cut_document(text, lambda start: start + granularity_chars, joiner_is_free=True)


def chunk_document_by_tokens(text: str, token_starts: NDArray[np.int64], granularity_tokens: int) -> Chunks:
    """Cut as "split" does, each chunk with its joiner within a window of `granularity_tokens` tokens of the document.

    token_starts: int64 [num_tokens], the character at which each token of the whole document starts, ascending. A chunk
    tokenized alone can differ from the same characters inside the document by a token or two at its ends.
    """

    def window_end(start: int) -> int:
        last = int(np.searchsorted(token_starts, start)) + granularity_tokens
        return max(start + 1, int(token_starts[last])) if last < len(token_starts) else len(text)

    return _cut_document(text, window_end, joiner_is_free=False)


def _cut_document(text: str, window_end: Callable[[int], int], *, joiner_is_free: bool) -> Chunks:
    chunks = Chunks([], [])
    start, content_end = 0, len(text.rstrip())
    while start < len(text):
        end = window_end(start)
        if end >= len(text):
            cut, joiner = len(text), ""
        else:
            cut, joiner = _cut(text, start, end, content_end, end + 1 if joiner_is_free else end)
        chunks.texts.append(text[start:cut])
        chunks.joiners.append(joiner)
        start = cut + len(joiner)
    return chunks


def _cut(text: str, start: int, end: int, content_end: int, newline_end: int) -> tuple[int, str]:
    """Where the chunk that starts at `start` ends, at most at `end`, and its joiner."""
    newline = text.rfind("\n", start, newline_end)
    if content_end <= newline < len(text) - 1:  # the rest is blank lines: leave it some text, no blank chunk
        earlier = text.rfind("\n", start, content_end)
        newline = earlier if _has_text(text, start, earlier) else newline
    if _has_text(text, start, newline):
        return newline, "\n"
    for cut in (_last_end(_SENTENCE_END, text, start, end), _last_end(_SPACE, text, start, end)):
        if _has_text(text, start, cut):
            return cut, ""
    return (newline, "\n") if newline > start and not _has_text(text, start, end) else (end, "")


def _has_text(text: str, start: int, end: int) -> bool:
    return _NO_SPACE.search(text, start, end) is not None  # nothing is copied


def _last_end(pattern: re.Pattern[str], text: str, start: int, end: int) -> int:
    """The end of the pattern's last match in text[start:end], or -1."""
    last = -1
    for match in pattern.finditer(text, start, end):
        last = match.end()
    return last


def _published_chunks(text: str, granularity_chars: int) -> Chunks:
    """Algorithm 1 as published: newlines are not counted, a group of length 0 is not emitted, the last group is."""
    chunks: list[str] = []
    group: list[str] = []
    length = 0
    for paragraph in text.split("\n"):
        if length + len(paragraph) > granularity_chars:
            if length > 0:
                chunks.append("\n".join(group))
            group, length = [], 0
        group.append(paragraph)
        length += len(paragraph)
    chunks.append("\n".join(group))
    return Chunks(chunks, ["\n"] * (len(chunks) - 1) + [""])


def text_hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """A 64-bit BLAKE2b hash of every text, by which exact copies are known: uint64 [n]."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8")
