"""A plain folder of transformers in; a causal LM with its tokenizer, and what they say of themselves, out."""

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

from evaluation.memory import check_weights_fit
from nextlong.errors import UserError
from nextlong.special_tokens import named_token


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that only reads: no gradients, no dropout."""

    folder: Path
    lm: Any
    """Of transformers; attention is sdpa."""
    tokenizer: FastTokenizer
    """Special tokens within a text are text; it neither cuts nor pads."""
    tokenizer_sha256: str
    positions: int | None
    """Tokens that it can read; None: its configuration states no limit."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        found: torch.device = self.lm.device
        return found

    def read(self, ids: Tensor, cache: Any, **options: Any) -> Any:
        """What transformers gives for tokens [T] after those of a cache, which keeps them, too."""
        return self.lm(input_ids=ids[None], use_cache=True, **{self._cache_name: cache}, **options)

    @functools.cached_property
    def _cache_name(self) -> str:
        """What transformers calls it: since 5.24 otherwise than before."""
        return "cache" if "cache" in inspect.signature(self.lm.forward).parameters else "past_key_values"

    def prompt_ids(self, text: str) -> Tensor:
        """int64 [T]: a text's tokens, with the special ones that its tokenizer puts before it, not those after."""
        encoding = self.tokenizer.encode(text)
        last = len(encoding.ids)
        while last and encoding.special_tokens_mask[last - 1]:
            last -= 1
        return self.as_ids(encoding.ids[:last])

    def as_ids(self, ids: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """int64 [T], where the model computes."""
        return torch.as_tensor(ids, dtype=torch.int64, device=self.device)

    def eos_ids(self) -> frozenset[int]:
        """What ends an answer. Raises UserError where the folder names none, or one that is not in its vocabulary."""
        told = self.lm.generation_config.eos_token_id
        if told is None:
            told = self.lm.config.eos_token_id
        if told is None:
            name = named_token(self.folder, "eos")
            told = None if name is None else self.tokenizer.token_to_id(name)
        found = frozenset([told] if isinstance(told, int) else told or ())
        if not found:
            raise UserError(
                f"the tokenizer of {self.folder} has no end-of-text token, which ends an answer: nothing there names "
                f"one. Set eos_token_id in its generation_config.json."
            )
        if unknown := [each for each in found if self.tokenizer.id_to_token(each) is None]:
            raise UserError(
                f"{self.folder} says that token {unknown[0]} ends a text (eos_token_id), but its tokenizer has no such "
                f"token. Set eos_token_id in its generation_config.json."
            )
        return found

    def check_length(self, length_tokens: int) -> None:
        """Raise UserError for a length beyond the model's positions."""
        if self.positions is not None and length_tokens > self.positions:
            raise UserError(
                f"a length of {length_tokens:,} tokens is asked for, but {self.folder} has {self.positions:,} "
                f"positions (max_position_embeddings). Ask for shorter ones, or train it for longer texts."
            )


def load_model(folder: Path, *, device: str = "auto", dtype: str = "auto") -> Model:
    """Read a folder; nothing is fetched, and no code of it is run.

    device, dtype: as in config.Evaluation. Raises UserError for a folder that holds no causal LM with its weights and
    a fast tokenizer, and where the weights are larger than the memory.
    """
    check_folder(folder)
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but no GPU is to be seen here. Leave it out, or give cpu.")
    if dtype == "auto":
        dtype = "bfloat16" if place.type == "cuda" else "float32"
    numbers: torch.dtype = getattr(torch, dtype)
    check_weights_fit(folder, place, numbers)
    tokenizer, sha256 = _tokenizer(folder)
    try:
        lm = _lm(folder, numbers).to(place)
    except torch.OutOfMemoryError as error:
        raise UserError(f"the weights of {folder} do not fit into the memory of the GPU ({error}).") from error
    text_config = lm.config.get_text_config()
    if tokenizer.get_vocab_size() > text_config.vocab_size:
        raise UserError(
            f"{folder} has a tokenizer of {tokenizer.get_vocab_size():,} entries, but a model of "
            f"{text_config.vocab_size:,}. Give the tokenizer that it was trained with."
        )
    positions = getattr(text_config, "max_position_embeddings", None)
    return Model(folder, lm.eval().requires_grad_(False), tokenizer, sha256, positions)


def check_folder(folder: Path) -> None:
    """Raise UserError for a folder that no export made."""
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}. Give the folder of a model, as an export of a training makes it."
        )
    for name, what in (("config.json", "the shape of a model"), ("tokenizer.json", "a fast tokenizer")):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no exported model: it has no {name}, which holds {what}.")
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder} is no exported model: it has no safetensors. Save it with save_pretrained.")


def identity(model: Model) -> str:
    """A checksum of what decides its answers: configuration, weights, tokenizer, precision and kind of device."""
    digest = hashlib.sha256(f"{model.lm.dtype} {model.device.type} {model.tokenizer_sha256}".encode())
    for path in sorted([*model.folder.glob("*config.json"), *model.folder.glob("*.safetensors")]):
        with open(path, "rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _tokenizer(folder: Path) -> tuple[FastTokenizer, str]:
    data = (folder / "tokenizer.json").read_bytes()
    try:
        tokenizer = FastTokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception for whatever it cannot parse
        raise UserError(f"{folder / 'tokenizer.json'} cannot be read: {error}. Save the tokenizer anew.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer, hashlib.sha256(data).hexdigest()


def _lm(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of reading weights: it would stand among ours
    try:
        lm, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder} holds no causal LM that transformers can read ({reason}).") from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"{folder} lacks {len(missing)} of its model's weights, such as {missing[0]}. Export it again.")
    kinds = set(getattr(lm.config.get_text_config(), "layer_types", None) or ())
    if others := sorted(kinds - {"full_attention", "sliding_attention"}):
        raise UserError(f"{folder} has layers of {others[0]}; only layers of attention can be evaluated.")
    return lm
