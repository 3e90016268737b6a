"""A model's config.json in, its sizes and numbers of parameters out; no torch and no transformers needed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from nextlong.errors import UserError

KNOWN = ("llama", "qwen2", "qwen3", "mistral")
"""Kinds whose numbers are tested to be exact; others are counted as Llama."""
_KV_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}  # what transformers takes where config.json does not say
_HEAD_DIM = {"qwen3": 128}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a causal LM, by the names of transformers."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    is_tied: bool
    """Whether the head is the embedding."""
    has_qkv_bias: bool
    has_output_bias: bool
    has_mlp_bias: bool
    has_qk_norm: bool

    @classmethod
    def read(cls, folder: str) -> "Shape":
        """Of a transformers folder. Raises UserError for one without a config.json of a decoder."""
        path = Path(folder).expanduser() / "config.json"
        try:
            return cls.of(json.loads(path.read_text()))
        except FileNotFoundError as error:
            raise UserError(
                f"model.path {folder} has no config.json: give a folder of transformers, or a hub id (OWNER/NAME)."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} describes no causal LM: {type(error).__name__} {error}.") from error

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Shape":
        """Of what a config.json holds. Raises KeyError for sizes that it does not."""
        kind, heads, hidden = config["model_type"], int(config["num_attention_heads"]), int(config["hidden_size"])
        has_bias = bool(config.get("attention_bias", False)) and kind in ("llama", "qwen3")
        return cls(
            model_type=kind,
            vocab_size=int(config["vocab_size"]),
            hidden_size=hidden,
            intermediate_size=int(config["intermediate_size"]),
            num_hidden_layers=int(config["num_hidden_layers"]),
            num_attention_heads=heads,
            num_key_value_heads=int(config.get("num_key_value_heads") or _KV_HEADS.get(kind, heads)),
            head_dim=int(config.get("head_dim") or _HEAD_DIM.get(kind, hidden // heads)),
            is_tied=bool(config.get("tie_word_embeddings", False)),
            has_qkv_bias=has_bias or kind == "qwen2",
            has_output_bias=has_bias,
            has_mlp_bias=bool(config.get("mlp_bias", False)) and kind == "llama",
            has_qk_norm=kind == "qwen3",
        )

    @property
    def num_layer_parameters(self) -> int:
        """Of one layer."""
        hidden, wide = self.hidden_size, self.intermediate_size
        query, key = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = hidden * (2 * query + 2 * key)
        attention += self.has_qkv_bias * (query + 2 * key) + self.has_output_bias * hidden
        attention += self.has_qk_norm * 2 * self.head_dim
        mlp = 3 * hidden * wide + self.has_mlp_bias * (2 * wide + hidden)
        return attention + mlp + 2 * hidden

    @property
    def num_root_parameters(self) -> int:
        """Of what is in no layer: embedding, head and the last norm."""
        return (1 if self.is_tied else 2) * self.vocab_size * self.hidden_size + self.hidden_size

    @property
    def num_parameters(self) -> int:
        """Of all."""
        return self.num_hidden_layers * self.num_layer_parameters + self.num_root_parameters

    @property
    def num_matrix_parameters(self) -> int:
        """Those that every token is multiplied with: an embedding that is no head is only looked up."""
        return self.num_parameters - (0 if self.is_tied else self.vocab_size * self.hidden_size)
