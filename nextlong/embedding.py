"""Texts in, vectors out (Sec. 3.1.2, Eq. 2): an ONNX model, pooled and normalised as the model's own folder says."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.config import Embedding
from nextlong.device_pooling import DevicePooling
from nextlong.errors import UserError
from nextlong.indexing import Vectors
from nextlong.model_folder import find_onnx, fingerprint, open_tokenizer, read_folder
from nextlong.onnx_session import open_session
from nextlong.quantization import int8_model, scales_by_call

_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "task_id")
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_TOKENIZED_TEXTS = 256  # at once: bounds the library's Encoding objects, about 100 bytes a token
# Measured on one core with BERT 384 and 768 wide: calls of 256 tokens are fastest, 512 cost 1 to 4 %, 1,024 4 to 10 %,
# 4,096 up to 25 %. Rounding short texts up to multiples of 8, 16, 32, 64 costs 1, 6, 11, 22 %: so there are no steps.
_CPU_CALL_TOKENS = 256
_LENGTH_STEP = {"CPU": 1, "CUDA": 8}
_POOLING_PROVIDERS = {"CUDA"}  # where a token-level output costs more to fetch than to pool


class Embedded(NamedTuple):
    """The vectors of n texts and what they cost."""

    vectors: Vectors
    """float16 or float32 [n, dimensions], in the order of the texts"""
    num_cut: int
    """Texts that were longer than the model's limit."""
    num_tokens: int
    """Tokens that the model read, its special tokens included; exact copies count once."""
    num_padding_tokens: int
    """Tokens that it read besides, to fill up batches."""


class Embedder:
    """A model and its tokenizer, ready to embed. It cannot be pickled: load it in the process that uses it.

    dimensions: length of a vector. max_tokens: longest input in the model's tokens. provider: "CPU" or "CUDA".
    """

    def __init__(self, folder: Path, options: Embedding, num_threads: int) -> None:
        file = find_onnx(folder, options.file)
        self._name = f"{folder.name}/{file.relative_to(folder)}"
        self._facts = read_folder(folder, options.max_tokens)
        self._tokenizer = open_tokenizer(folder / "tokenizer.json", self._facts.max_tokens)
        device = options.device
        if options.precision == "int8":
            self._name += " in int8"
            file, device = int8_model(file, fingerprint(folder, options)), "cpu"
        self._session, self.provider, self._why_not_cuda = open_session(file, device, num_threads)
        self._inputs = _check_inputs(self._session.get_inputs(), options.task_id)
        self._options = options
        self._output, self._pooling, size = self._choose_output()
        if options.dimensions is not None and options.dimensions > size:
            raise UserError(
                f"embedding.dimensions is {options.dimensions}, but the model in {folder} has {size}. "
                f"Use at most {size}, or null for all."
            )
        self.dimensions: int = options.dimensions or size
        self.max_tokens = self._facts.max_tokens
        self._device_pooling: DevicePooling | None = None
        if self._pooling is not None and self.provider in _POOLING_PROVIDERS:
            how = (self._output, self._pooling, self.dimensions, self._facts.normalises)
            self._device_pooling = DevicePooling(self._session, *how)
        fastest = _CPU_CALL_TOKENS * num_threads if self.provider == "CPU" else options.batch_tokens
        self._call_tokens = min(options.batch_tokens, fastest)
        if self.provider == "CPU" and scales_by_call(file):
            self._call_tokens = 1  # each text alone, so that its vector does not depend on the others

    @classmethod
    def load(cls, folder: Path, options: Embedding, *, num_threads: int = 1) -> "Embedder":
        """Load the model of a folder. Raises UserError for what is missing, unreadable or not supported there.

        num_threads: of one call of the model; 1, since parallelism comes from processes.
        """
        return cls(folder, options, num_threads)

    def describe(self) -> str:
        """One line for a log."""
        return (
            f"{self._name} on {self.provider}{self._why_not_cuda}, {self.dimensions} {self._options.dtype} dimensions, "
            f"at most {self.max_tokens:,} tokens, {f'{self._pooling} pooling' if self._pooling else 'pools itself'}, "
            f"{'normalised' if self._facts.normalises else 'not normalised: it compares by dot product'}"
        )

    def embed(self, texts: Sequence[str]) -> Embedded:
        """The vectors of texts, in their order; exact copies are embedded once.

        A text above the model's limit is cut and counted. Sorted by length, texts of about one length share a call of
        at most options.batch_tokens (on a CPU at most 256, where it is fastest); a longer one has a call of its own.
        A model that scales its activations by what shares a call, as int8 ones do, is given one text a call.
        So on the CPU a text has the same bits whatever its batch-mates and padding (measured on BERT models with
        token-level output; a layer after the pooling may differ in the last digit). Not so on CUDA.
        """
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        token_ids, is_cut = self._tokenize(list(places))
        lengths = np.array([len(ids) for ids in token_ids], np.int64)
        vectors: Vectors = np.empty((len(places), self.dimensions), self._options.dtype)
        num_padding_tokens = 0
        for rows, width in self._batches(lengths):
            vectors[rows] = self._vectors([token_ids[row] for row in rows], width)
            num_padding_tokens += width * len(rows) - int(lengths[rows].sum())
        order = np.array([places[text] for text in texts], np.int64)
        num_cut = int(np.array(is_cut, np.bool_)[order].sum())
        return Embedded(vectors[order], num_cut, int(lengths.sum()), num_padding_tokens)

    def _tokenize(self, texts: list[str]) -> tuple[list[NDArray[np.int32]], list[bool]]:
        token_ids, is_cut = [], []
        for first in range(0, len(texts), _TOKENIZED_TEXTS):
            batch = [self._options.prefix + text for text in texts[first : first + _TOKENIZED_TEXTS]]
            for encoding in self._tokenizer.encode_batch_fast(batch):
                token_ids.append(np.array(encoding.ids or [self._facts.padding_id], np.int32))
                is_cut.append(bool(encoding.overflowing))
        return token_ids, is_cut

    def _batches(self, lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Rows and their padded length, the longest first: what does not fit into memory fails at once."""
        order = np.argsort(-lengths, kind="stable")
        step, first = _LENGTH_STEP[self.provider], 0
        while first < len(order):
            width = min(-(-int(lengths[order[first]]) // step) * step, self.max_tokens)
            last = first + max(1, self._call_tokens // width)
            yield order[first:last], width
            first = last

    def _vectors(self, token_ids: list[NDArray[np.int32]], width: int) -> NDArray[np.float32]:
        feed, lengths = self._feed(token_ids, width), [len(ids) for ids in token_ids]
        if self._device_pooling is not None:
            return self._device_pooling(feed, np.array(lengths), width)
        output = self._session.run([self._output], feed)[0]
        if self._pooling == "cls":
            output = output[:, 0]
        elif self._pooling == "mean":  # over a text's own tokens in their order, so that padding changes no bit
            output = [row[:length].mean(axis=0, dtype=np.float32) for row, length in zip(output, lengths, strict=True)]
        vectors = np.array(output, np.float32)[:, : self.dimensions]
        if self._facts.normalises:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _feed(self, token_ids: list[NDArray[np.int32]], width: int) -> dict[str, NDArray[Any]]:
        input_ids = np.full((len(token_ids), width), self._facts.padding_id, np.int64)
        attention_mask = np.zeros_like(input_ids)
        for row, ids in enumerate(token_ids):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        values = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": np.zeros_like(input_ids),
            "position_ids": np.broadcast_to(self._facts.first_position + np.arange(width), input_ids.shape),
            "task_id": np.array(self._options.task_id),
        }
        return {name: values[name].astype(dtype, copy=False) for name, dtype in self._inputs.items()}

    def _choose_output(self) -> tuple[str, str | None, int]:
        """The output to take, its pooling (None: one vector a text already) and size, by running the model once."""
        probe = [np.full(min(2, self._facts.max_tokens), self._facts.padding_id, np.int32)]
        names = [each.name for each in self._session.get_outputs()]
        try:
            outputs = self._session.run(names, self._feed(probe, len(probe[0])))
        except Exception as error:  # the library's own kinds derive from nothing narrower
            raise UserError(f"{self._name} loads, but does not run: {error}") from error
        shapes = {name: np.shape(output) for name, output in zip(names, outputs, strict=True)}
        tokens = [name for name, shape in shapes.items() if len(shape) == 3]
        vectors = [name for name, shape in shapes.items() if len(shape) == 2]
        pooled = [name for name in vectors if "sentence_embedding" in name or not tokens]
        pooling = self._options.pooling
        if pooled and not (pooling and tokens):
            if pooling:
                raise UserError(f"embedding.pooling is {pooling!r}, but the model pools itself. Set it to null.")
            return pooled[0], None, shapes[pooled[0]][1]
        if not tokens:
            raise UserError(
                f"the outputs of {self._name} are no embeddings [texts, tokens, d] or [texts, d]: {shapes}."
            )
        if self._facts.unsupported and not pooling:
            raise UserError(
                f"the model in {self._name} has {self._facts.unsupported}, which is not supported. Use an ONNX file "
                f"with a sentence_embedding output, or set embedding.pooling to 'mean' or 'cls' to do without."
            )
        return tokens[0], pooling or self._facts.pooling, shapes[tokens[0]][2]


def _check_inputs(inputs: list[Any], task_id: int | None) -> dict[str, Any]:
    """Names of the model's inputs and their integer types."""
    required = {each.name: each.type for each in inputs if not each.type.startswith("optional")}
    for name, kind in required.items():
        if name not in _INPUTS or kind not in _INTEGERS:
            raise UserError(
                f"the model wants an input {name!r} of type {kind}; known are {', '.join(_INPUTS)} of int64 or int32. "
                f"Export it for feature extraction, or use another ONNX file of it (embedding.file)."
            )
    if "task_id" in required and task_id is None:
        raise UserError(
            "the model wants a task_id, but embedding.task_id is null. Set the one its card gives "
            "(jina-embeddings-v3: 1 retrieval.passage, 4 text-matching)."
        )
    if task_id is not None and "task_id" not in required:
        raise UserError(f"embedding.task_id is {task_id}, but the model has no such input. Set it to null.")
    return {name: _INTEGERS[kind] for name, kind in required.items()}
