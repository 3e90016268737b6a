"""A model's folder in, what its files say out: the ONNX file, the limits, the pooling, the tokenizer, its identity."""

import hashlib
import json
import mmap
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from nextlong.config import Embedding
from nextlong.errors import UserError
from nextlong.folders import inside
from nextlong.hub import snapshot

_ONNX_FILES = ("model.onnx", "onnx/model.onnx")
_ONNX_ENDINGS = ("", "_data", "_data_[0-9]*", ".data")  # the file itself, and names of its external data
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
_EXTERNAL_FILE = re.compile(rb"\n\x08location\x12([\x01-\x7f])")  # protobuf: the key "location", its value's length


class ModelFacts(NamedTuple):
    """What the configuration files of a model's folder say."""

    max_tokens: int
    pooling: str
    unsupported: str | None
    """What they ask for besides, that a token-level output would have to go through."""
    normalises: bool
    padding_id: int
    first_position: int


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
    onnx_files = [f"{name}{ending}" for name in ([file] if file else _ONNX_FILES) for ending in _ONNX_ENDINGS]
    return snapshot("embedding.model", model, [*onnx_files, "*.json"])


def fingerprint(folder: Path, options: Embedding) -> str:
    """What a model is: sha256 over its ONNX file, external data, tokenizer and configuration; no paths in it.

    Raises UserError for external data outside the folder.
    """
    onnx_file = find_onnx(folder, options.file)
    files = {"onnx": onnx_file} | {name: folder / name for name in ("tokenizer.json", *_CONFIG_FILES)}
    files |= {f"data {name}": path for name, path in _external_files(onnx_file).items()}
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        if path.is_file():
            with open(path, "rb") as file:
                digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def find_onnx(folder: Path, file: str | None) -> Path:
    """The ONNX file of a model's folder; UserError when it, tokenizer.json or config.json is not there."""
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


def read_folder(folder: Path, max_tokens: int | None) -> ModelFacts:
    """What the configuration files say; max_tokens: the longest input wanted, None: the model's own limit."""
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
    return ModelFacts(limit, modes[0], unsupported, not compares_by_dot, padding_id, first_position)


def open_tokenizer(path: Path, max_tokens: int) -> Any:
    """The model's tokenizer, cutting at `max_tokens`, special tokens included."""
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


def _external_files(onnx_file: Path) -> dict[str, Path]:
    """The files that hold an ONNX file's weights, by the names in it. Raises UserError for one outside its folder.

    Of a link (the hub's cache is full of them) the folder of the file that it leads to counts, too.
    """
    if not onnx_file.stat().st_size:
        return {}
    with open(onnx_file, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        names = {data[match.end() : match.end() + match[1][0]] for match in _EXTERNAL_FILE.finditer(data)}
    files = {name: inside(onnx_file.parent, name) for name in sorted(map(os.fsdecode, names))}
    homes = {onnx_file.parent.resolve(), onnx_file.resolve().parent}
    for path in files.values():
        if not homes & set(path.resolve().parents):
            raise UserError(
                f"the weights of {onnx_file} lie in {path.resolve()}, outside its folder, and are not read there. "
                f"Put the file itself beside it."
            )
    return files


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
