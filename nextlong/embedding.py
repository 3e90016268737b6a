"""Texts in, vectors out (Sec. 3.1.2, Eq. 2): an ONNX model, pooled and normalised as the model's own folder says."""

import contextlib
import ctypes
import hashlib
import io
import json
import mmap
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.config import Embedding
from nextlong.errors import UserError

Vectors = NDArray[np.float16] | NDArray[np.float32]

_ONNX_FILES = ("model.onnx", "onnx/model.onnx")
_CONFIG_FILES = (
    "config.json",
    "1_Pooling/config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
)
_MODULES = ("Transformer", "Pooling", "Normalize", "Dropout")  # kinds in modules.json that are reproduced here
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")  # positions start after pad_token_id
_SANE_TOKENS = 1_000_000  # tokenizer_config.json says 1e30 where it means "no limit"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "task_id")
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_EXTERNAL_FILE = re.compile(rb"\n\x08location\x12([\x01-\x7f])")  # protobuf: the key "location", its value's length
_TOKENIZED_TEXTS = 256  # at once: bounds the library's Encoding objects, about 100 bytes a token
# Measured on one core with BERT 384 and 768 wide: calls of 256 tokens are fastest, 512 cost 1 to 4 %, 1,024 4 to 10 %,
# 4,096 up to 25 %. Rounding short texts up to multiples of 8, 16, 32, 64 costs 1, 6, 11, 22 %: so there are no steps.
_CPU_CALL_TOKENS = 256
_LENGTH_STEP = {"CPU": 1, "CUDA": 8}


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
        file = _find_onnx(folder, options.file)
        self._name = f"{folder.name}/{file.relative_to(folder)}"
        self._facts = _read_folder(folder, options.max_tokens)
        self._tokenizer = _open_tokenizer(folder / "tokenizer.json", self._facts.max_tokens)
        self._session, self.provider, self._why_not_cuda = _open_session(file, options.device, num_threads)
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
        fastest = _CPU_CALL_TOKENS * num_threads if self.provider == "CPU" else options.batch_tokens
        self._call_tokens = min(options.batch_tokens, fastest)

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
        On the CPU a float32 model gives a text the same bits whatever its batch-mates and padding (measured on BERT
        models with token-level output; a layer after the pooling may differ in the last digit). Not so int8 models,
        whose scales depend on the batch, nor CUDA.
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
        output = self._session.run([self._output], self._feed(token_ids, width))[0]
        if self._pooling == "cls":
            output = output[:, 0]
        elif self._pooling == "mean":  # over a text's own tokens in their order, so that padding changes no bit
            lengths = map(len, token_ids)
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


def resolve_model(model: str, file: str | None = None) -> Path:
    """The folder that `model` means: a local one, or a hub id's, kept in the hub's cache.

    file: the ONNX file wanted, as in Embedding; None: the default names. Of a hub id only that file with its external
    data and the json files are fetched: no code, and no weights of other formats.
    Raises UserError when there is no such folder, and no such hub id within reach.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"embedding.model is {model!r}, a file. Give its folder; embedding.file names a file in there.")
    if model.count("/") > 1 or model.startswith((".", "~", "/")):
        raise UserError(f"embedding.model is {model!r}, but there is no such folder. Give a model folder or a hub id.")
    from huggingface_hub import snapshot_download

    onnx_files = [f"{name}*" for name in ([file] if file else _ONNX_FILES)]
    try:
        return Path(snapshot_download(model, allow_patterns=[*onnx_files, "*.json"]))
    except Exception as error:  # offline, unknown id, no access: all end in the same advice
        reason = str(error).split("\n")[0]
        raise UserError(
            f"embedding.model is {model!r}, but there is no such folder, and the hub gave no such model ({reason}). "
            f"Give a model folder, or a hub id that can be reached."
        ) from error


def fingerprint(folder: Path, options: Embedding) -> str:
    """What a model is: sha256 over its ONNX file, external data, tokenizer and configuration; no paths in it."""
    onnx_file = _find_onnx(folder, options.file)
    files = {"onnx": onnx_file} | {name: folder / name for name in ("tokenizer.json", *_CONFIG_FILES)}
    files |= {f"data {name}": onnx_file.parent / name for name in _external_files(onnx_file)}
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        if path.is_file():
            with open(path, "rb") as file:
                digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


class _Facts(NamedTuple):
    """What the configuration files of a model's folder say."""

    max_tokens: int
    pooling: str
    unsupported: str | None
    """What they ask for besides, that a token-level output would have to go through."""
    normalises: bool
    padding_id: int
    first_position: int


def _find_onnx(folder: Path, file: str | None) -> Path:
    names = [file] if file else list(_ONNX_FILES)
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        others = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.onnx"))
        hint = f"It has {', '.join(others)}: name one as embedding.file." if others else "Export the model to ONNX."
        raise UserError(f"the model folder {folder} has no ONNX file; looked for {' and '.join(names)}. {hint}")
    for name in ("tokenizer.json", "config.json"):
        if not (folder / name).is_file():
            raise UserError(f"the model folder {folder} has no {name}. Copy it there from the model's repository.")
    return found[0]


def _external_files(onnx_file: Path) -> list[str]:
    """Names of the files beside an ONNX file that hold its weights; ONNX Runtime refuses one outside the folder."""
    if not onnx_file.stat().st_size:
        return []
    with open(onnx_file, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        names = {data[match.end() : match.end() + match[1][0]] for match in _EXTERNAL_FILE.finditer(data)}
    return sorted(os.fsdecode(name) for name in names)


def _read_folder(folder: Path, max_tokens: int | None) -> _Facts:
    model, pooling, modules, sentences, similarity, tokenizer = (_read_json(folder / name) for name in _CONFIG_FILES)
    padding_id = model.get("pad_token_id") or 0
    first_position = padding_id + 1 if model.get("model_type") in _OFFSET_POSITIONS else 0
    positions = _sane(model.get("max_position_embeddings"))
    longest = positions - first_position if positions else _SANE_TOKENS
    own = _sane(sentences.get("max_seq_length")) or _sane(tokenizer.get("model_max_length")) or longest
    limit = max_tokens or min(own, longest)
    if limit == _SANE_TOKENS:
        raise UserError(f"the model folder {folder} states no longest input. Set embedding.max_tokens.")
    if limit > longest:
        raise UserError(f"embedding.max_tokens is {limit}, but the model in {folder} ends at {longest}. Lower it.")
    modes = _pooling_modes(pooling)
    kinds = [module["type"].split(".")[-1] for module in modules]
    others = [kind for kind in kinds if not kind.endswith(_MODULES)]
    unsupported = f"{' and '.join(modes)} pooling (1_Pooling/config.json)" if modes not in (["mean"], ["cls"]) else None
    if others:
        unsupported = f"a layer {' and '.join(others)} (modules.json)"
    compares_by_dot = bool(kinds) and "Normalize" not in kinds and similarity.get("similarity_fn_name") == "dot"
    return _Facts(limit, modes[0], unsupported, not compares_by_dot, padding_id, first_position)


def _pooling_modes(config: dict[str, Any]) -> list[str]:
    """["mean"], ["cls"], or what else 1_Pooling/config.json asks for, in its older or newer form."""
    modes = config.get("pooling_mode", [name for name in config if name.startswith("pooling_mode_") and config[name]])
    names = [modes] if isinstance(modes, str) else modes
    return [re.sub("^pooling_mode_|_tokens?$", "", name) for name in names] or ["mean"]


def _sane(number: Any) -> int | None:
    return number if isinstance(number, int) and 1 <= number <= _SANE_TOKENS else None


def _read_json(path: Path) -> Any:
    """What a JSON file holds; {} where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"the model's {path} is not JSON: {error}. Fetch it again.") from error


def _open_tokenizer(path: Path, max_tokens: int) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for whatever it cannot parse
        raise UserError(f"the model's {path} cannot be read: {error}. Fetch it again.") from error
    num_special = tokenizer.num_special_tokens_to_add(False)
    if max_tokens <= num_special:
        raise UserError(f"embedding.max_tokens is {max_tokens}: the {num_special} special tokens fill it. Raise it.")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


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


def _open_session(file: Path, device: str, num_threads: int) -> tuple[Any, str, str]:
    """A session, its provider, and a remark for the log on why that is not CUDA."""
    problem = None if device == "cpu" else _cuda_problem()
    if device != "cpu" and problem is None:
        session = _new_session(file, ["CUDAExecutionProvider", "CPUExecutionProvider"], num_threads)
        if "CUDAExecutionProvider" in session.get_providers():
            return session, "CUDA", ""
        problem = _cuda_library_problem()
    if device == "cuda":
        raise UserError(f"embedding.device is 'cuda', but {problem}. Mend that, or use 'auto' or 'cpu'.")
    return _new_session(file, ["CPUExecutionProvider"], num_threads), "CPU", f" ({problem})" if problem else ""


def _new_session(file: Path, providers: list[str], num_threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised besides
    onnxruntime.set_default_logger_severity(4)  # a provider that does not load prints through this one
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers, enable_fallback=0)
    except Exception as error:  # the library's own kinds derive from nothing narrower
        advice = "Use its float32 file (embedding.file)" if "16" in file.stem else "Fetch or export it again"
        version, reason = onnxruntime.__version__, " ".join(str(error).split())
        raise UserError(f"ONNX Runtime {version} cannot load {file}: {reason}. {advice}.") from error
    finally:
        onnxruntime.set_default_logger_severity(2)


def _cuda_problem() -> str | None:
    """What keeps CUDA from being tried; None if nothing does. The libraries of NVIDIA's packages are then loaded."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this ONNX Runtime is built without CUDA; the package onnxruntime-gpu has it"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver: libcuda.so.1 is not found"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return f"the NVIDIA driver finds no device, status {status}"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        onnxruntime.preload_dlls()
    return None


def _cuda_library_problem() -> str:
    """Why ONNX Runtime's CUDA library did not load; asked only after it failed to, as loading it ahead breaks it."""
    import onnxruntime

    try:
        ctypes.CDLL(str(Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return f"ONNX Runtime's CUDA library does not load: {error}"
    return "ONNX Runtime refused the CUDA device"
