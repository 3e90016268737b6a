"""Texts in, neighbours by shared words out: BM25 in place of embeddings and their index, with the library bm25s."""

import logging
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.decontamination import words
from nextlong.searching import Neighbours

_QUERY_FILES = ("query_offsets.npy", "query_words.npy")
_NO_WORD = ""  # in every vocabulary and in no text: bm25s cannot build or search an empty one


class Bm25:
    """A BM25 index over texts; the id of a text is its row number.

    Lucene's variant with k1 = 1.5 and b = 0.75, the defaults of bm25s. Words are those of `decontamination.words`, not
    stemmed; stop words count too: their idf is near 0, and nothing here is made for one language.
    """

    def __init__(self, index: Any, words_of: "_WordsOf") -> None:
        self._index = index
        self._words_of = words_of

    @classmethod
    def build(cls, texts: Iterable[str]) -> "Bm25":
        """Index the texts in one pass, on one thread; the same texts give the same index, bytes on disk included.

        Peak memory: 4 bytes a word of the texts, and about 45 for each different word of each text.
        """
        vocabulary = {_NO_WORD: 0}
        texts_words = [
            array("i", [vocabulary.setdefault(word, len(vocabulary)) for word in words(text)]) for text in texts
        ]
        index = _library().BM25(backend="numpy", csc_backend="numpy")
        # With no word at all, bm25s would divide by an average length of 0: it indexes one text that no query finds.
        searchable = texts_words if len(vocabulary) > 1 else [array("i", [0])]
        index.index((searchable, vocabulary), show_progress=False)
        index.scores["num_docs"] = len(texts_words)
        return cls(index, _WordsOf.of(texts_words))

    @classmethod
    def open(cls, folder: Path) -> "Bm25":
        """Open what `save` wrote: scores memory-mapped, so that a host's processes share them; each has the words."""
        index = _library().BM25.load(folder, mmap=True, allow_pickle=False, show_progress=False)
        for name in ("data", "indices", "indptr"):
            index.scores[name] = np.asarray(index.scores[name])  # still the mapped pages; slices of a memmap are slow
        of_texts = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _QUERY_FILES]
        return cls(index, _WordsOf(*map(np.asarray, of_texts)))

    def save(self, folder: Path) -> None:
        """Write the index into an existing, empty folder."""
        self._index.save(folder, show_progress=False)
        np.save(folder / _QUERY_FILES[0], self._words_of.offsets)
        np.save(folder / _QUERY_FILES[1], self._words_of.word_ids)

    def __len__(self) -> int:
        return int(self._index.scores["num_docs"])

    def neighbours(self, texts: Sequence[str], top_k: int) -> Neighbours:
        """The texts nearest to each of n queries: scores, ids [n, min(top_k, len(self))], by score, ties by id.

        A query is the set of its words: one that it repeats counts once, one that the index lacks not at all. Texts
        that score 0 (they share no word, or, among millions, only words of nearly every text) are no neighbours: the
        row ends in ids -1, scores -inf. A row is exact and does not depend on the other queries of the call. Computes
        every text's score, one query at a time; peak memory about 24 bytes a text.
        """
        return self._neighbours([self._word_ids(text) for text in texts], top_k)

    def neighbours_of(self, ids: NDArray[np.int64], top_k: int) -> Neighbours:
        """`neighbours` of indexed texts [n], by id; a text finds itself too."""
        return self._neighbours([self._words_of.query(each) for each in ids.tolist()], top_k)

    def scores_of(self, ids: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores [n, k] of given others [n, k], in their order, as in `neighbours`, but 0 stays 0; -inf for id -1."""
        scores = np.full(others.shape, -np.inf, np.float32)
        for row, (query, wanted) in enumerate(zip(ids.tolist(), others, strict=True)):
            scores[row, wanted >= 0] = self._scores_of_all(self._words_of.query(query))[wanted[wanted >= 0]]
        return scores

    def _neighbours(self, queries: Sequence[list[int]], top_k: int) -> Neighbours:
        shape = len(queries), min(top_k, len(self))
        scores, ids = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
        for row, word_ids in enumerate(queries):
            of_all = self._scores_of_all(word_ids)
            best = _best(of_all, shape[1])
            scores[row, : len(best)], ids[row, : len(best)] = of_all[best], best
        return Neighbours(scores, ids)

    def _word_ids(self, text: str) -> list[int]:
        return sorted(self._index.get_tokens_ids(set(words(text))))

    def _scores_of_all(self, word_ids: list[int]) -> NDArray[np.float32]:
        """float32 [len(self)], rounded to 6 decimals; summed by word id, so in one order whatever the query's order."""
        scores: NDArray[np.float32] = self._index.get_scores_from_ids(word_ids)
        return scores.astype(np.float64).round(6).astype(np.float32)


class _WordsOf(NamedTuple):
    """The distinct words of every indexed text: its query when it is itself looked up."""

    offsets: NDArray[np.int64]
    word_ids: NDArray[np.int32]

    @classmethod
    def of(cls, texts_words: Sequence[Sequence[int]]) -> "_WordsOf":
        distinct = [np.unique(np.asarray(each, np.int32)) for each in texts_words]
        offsets = np.cumsum([0, *map(len, distinct)], dtype=np.int64)
        return cls(offsets, np.concatenate([np.empty(0, np.int32), *distinct]))

    def query(self, text: int) -> list[int]:
        """The word ids of a text, ascending."""
        found: list[int] = self.word_ids[self.offsets[text] : self.offsets[text + 1]].tolist()
        return found


def _best(scores: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """Places of the top_k scores above 0, highest first, ties by place, also where the cut falls among equals."""
    found = np.flatnonzero(scores > 0)
    if len(found) > top_k > 0:
        least = np.partition(scores[found], -top_k)[-top_k]
        found = found[scores[found] >= least]
    return found[np.argsort(-scores[found], kind="stable")][:top_k]


def _library() -> Any:
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.NOTSET)  # at import it sets DEBUG, whatever the command line says
    return bm25s
