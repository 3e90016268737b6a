"""Texts in, token ids out: made once a chunk, its joiner included, and from then on only concatenated."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.chunking import Chunks, chunk_document_by_tokens
from nextlong.errors import UserError

log = logging.getLogger(__name__)

_BATCH_CHARS = 2_000_000  # an Encoding object costs about 100 bytes a token: this bounds them to some 50 MB


class TokenIds(NamedTuple):
    """Token ids of n texts: text i is ids[offsets[i]:offsets[i + 1]]."""

    ids: NDArray[np.uint32]
    """uint32 [sum of lengths]"""
    offsets: NDArray[np.int64]
    """int64 [n + 1], starts at 0"""


class Tokenizer:
    """A fast tokenizer (a tokenizer.json) that adds no special tokens and reads none from text, unless told to.

    reads_special_tokens: "<|endoftext|>" in a text is that token, as it must be in what a chat template writes.

    `concatenation` says what holds when the ids of texts are concatenated. "exact": they decode to the concatenated
    texts, to the byte (byte-level BPE without prefix space or normalizer). "round trip": each part decodes to what the
    tokenizer makes of that text alone (WordPiece, unigram, and whatever normalises).
    """

    def __init__(self, file: Path, *, reads_special_tokens: bool = False) -> None:
        from tokenizers import Tokenizer as FastTokenizer

        try:
            data = file.read_bytes()
            self._fast = FastTokenizer.from_buffer(data)
        except Exception as error:  # the library raises bare Exception for whatever it cannot parse
            raise UserError(
                f"tokenizer {file} cannot be read: {error}. Give a tokenizer.json of a fast tokenizer."
            ) from error
        specification = json.loads(data)
        if specification["model"].get("dropout"):
            raise UserError(f"tokenizer {file} has BPE dropout, so it gives other ids each time. Set dropout to null.")
        self._fast.no_truncation()
        self._fast.no_padding()
        self._fast.encode_special_tokens = not reads_special_tokens  # in a document they are text, not a boundary
        self.file = file
        self.fingerprint = hashlib.sha256(data).hexdigest()
        self.vocab_size: int = self._fast.get_vocab_size()
        self.special_tokens: dict[str, int] = {
            token.content: number for number, token in self._fast.get_added_tokens_decoder().items() if token.special
        }
        self.concatenation: Literal["exact", "round trip"] = _concatenation(specification)

    @classmethod
    def load(cls, name: str) -> "Tokenizer":
        """Open a tokenizer.json, a folder that holds one, or the tokenizer.json of a hub id.

        Raises UserError when there is none, or only files of a slow tokenizer.
        """
        return cls(resolve_tokenizer(name))

    def describe(self) -> str:
        """One line for people: vocabulary and what concatenation keeps."""
        kept = {
            "exact": "byte-level BPE: concatenated ids decode to the concatenated texts, to the byte",
            "round trip": "each chunk's ids decode to this tokenizer's own round trip of the chunk, not to its bytes",
        }
        return f"{self.vocab_size:,} entries; {kept[self.concatenation]}"

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of every text, without special tokens, in the order given."""
        parts, lengths = [np.empty(0, np.uint32)], [0]
        for batch in _batches(texts):
            ids = [encoding.ids for encoding in self._fast.encode_batch_fast(batch, add_special_tokens=False)]
            lengths += map(len, ids)
            parts.append(np.fromiter(chain.from_iterable(ids), np.uint32, sum(map(len, ids))))
        return TokenIds(np.concatenate(parts), np.cumsum(lengths, dtype=np.int64))

    def token_starts(self, text: str) -> NDArray[np.int64]:
        """The character of `text` at which each of its tokens starts: int64 [num_tokens], ascending."""
        starts = np.array([start for start, _ in self._fast.encode(text, add_special_tokens=False).offsets], np.int64)
        return np.maximum.accumulate(starts) if len(starts) else starts

    def token_id(self, token: str) -> int | None:
        """The id of one token, such as a special one; None: there is no such token."""
        found: int | None = self._fast.token_to_id(token)
        return found

    def encode_with_places(self, text: str) -> NDArray[np.int64]:
        """The tokens of a text and the characters they come from: int64 [num_tokens, 3], id, start, stop."""
        encoding = self._fast.encode(text, add_special_tokens=False)
        return np.column_stack([np.array(encoding.ids, np.int64), np.array(encoding.offsets, np.int64).reshape(-1, 2)])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens included."""
        text: str = self._fast.decode([int(token) for token in ids], skip_special_tokens=False)
        return text


def chunk_documents_by_tokens(texts: Sequence[str], tokenizer: Tokenizer, granularity_tokens: int) -> list[Chunks]:
    """Chunk documents so that no chunk has more than `granularity_tokens` tokens, its joiner included.

    A document whose chunks tokenize longer alone than inside it is cut again with a tighter window, until all fit.
    """
    return [_chunk_by_tokens(text, tokenizer, granularity_tokens) for text in texts]


def _chunk_by_tokens(text: str, tokenizer: Tokenizer, granularity_tokens: int) -> Chunks:
    starts = tokenizer.token_starts(text)
    window = granularity_tokens
    while True:
        chunks = chunk_document_by_tokens(text, starts, window)
        offsets = tokenizer.encode([chunk + joiner for chunk, joiner in zip(*chunks, strict=True)]).offsets
        excess = int(np.diff(offsets).max(initial=0)) - granularity_tokens
        if excess <= 0 or window == 1:
            return chunks
        window = max(1, window - excess)


def resolve_tokenizer(name: str) -> Path:
    """The tokenizer.json that `name` means: the file, a folder holding it, or a hub id (kept in the hub's cache)."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        if (path / "tokenizer.json").is_file():
            return path / "tokenizer.json"
        raise UserError(
            f"tokenizer {name}: the folder has no tokenizer.json, so it holds no fast tokenizer. Save one with "
            f"transformers' AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)."
        )
    if name.count("/") > 1 or name.startswith((".", "~", "/")):
        raise UserError(
            f"tokenizer {name}: there is no such file or folder. Give a tokenizer.json, its folder, or a hub id."
        )
    from huggingface_hub import hf_hub_download

    log.info("tokenizer: no folder here is %s, so the hub is asked for it", name)
    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except Exception as error:  # offline, unknown id, no such file, no access: all end in the same advice
        reason = str(error).split("\n")[0]
        raise UserError(
            f"tokenizer {name}: no such file or folder, and the hub gave no tokenizer.json for it ({reason}). "
            f"Give a tokenizer.json, its folder, or a hub id that can be reached."
        ) from error


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_chars = 0
    for text in texts:
        batch.append(text)
        num_chars += len(text)
        if num_chars >= _BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


def _concatenation(specification: dict[str, Any]) -> Literal["exact", "round trip"]:
    steps = _steps(specification.get("pre_tokenizer"))
    byte_level = [step for step in steps if step["type"] == "ByteLevel"]
    exact = (
        specification["model"]["type"] == "BPE"
        and specification.get("normalizer") is None
        and {step["type"] for step in steps} <= {"ByteLevel", "Split"}
        and all(step.get("behavior") == "Isolated" for step in steps if step["type"] == "Split")
        and len(byte_level) == 1
        and not byte_level[0].get("add_prefix_space", True)
        and not any(
            token["lstrip"] or token["rstrip"] for token in specification["added_tokens"] if not token["special"]
        )
        and [step["type"] for step in _steps(specification.get("decoder"))] == ["ByteLevel"]
    )
    return "exact" if exact else "round trip"


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A tokenizer.json's component as a flat list: a Sequence is its members."""
    if part is None:
        return []
    members = part.get("pretokenizers") or part.get("decoders")
    return [step for member in members for step in _steps(member)] if members else [part]
