"""A model and lengths in; what they need of memory, what is free, and the longest text that fits, out."""

from pathlib import Path
from typing import Any

import torch

from evaluation.blocks import BLOCK_TOKENS
from nextlong.errors import UserError

_CGROUP = Path("/sys/fs/cgroup")
_MASK_BYTES = 5  # of each token in sight of each token of a block: a boolean and its float32


def check_weights_fit(folder: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Raise UserError where a folder's weights, in a precision, are larger than the free memory of a CPU."""
    needed = sum(map(_num_weights, folder.glob("*.safetensors"))) * dtype.itemsize
    if device.type == "cpu" and needed > (free := free_bytes(device)):
        raise UserError(
            f"the weights of {folder} take {_size(needed)} in {str(dtype).removeprefix('torch.')}, but {_size(free)} "
            f"of memory are free. Give --dtype bfloat16, or a larger machine."
        )


def check_length_fits(lm: Any, length_tokens: int) -> None:
    """Raise UserError where keys and values of so many tokens are more than what is free on a CPU.

    It is known beforehand there: a system that has no memory left ends a process without a word. A GPU says it.
    """
    if lm.device.type == "cpu" and length_tokens > (most := most_tokens(lm)):
        raise UserError(too_long(lm, length_tokens, most))


def too_long(lm: Any, length_tokens: int, most: int) -> str:
    """A sentence for people. most: tokens that fit."""
    return (
        f"a text of {length_tokens:,} tokens does not fit into memory: its keys, values and masks take "
        f"{_size(length_tokens * bytes_a_token(lm))}. The longest that fits is of about {most:,} tokens."
    )


def most_tokens(lm: Any) -> int:
    """An estimate of the longest text that fits into what is free, rounded down to two digits."""
    most = free_bytes(lm.device) // bytes_a_token(lm)
    unit: int = 10 ** max(0, len(str(most)) - 2)
    return int(most // unit * unit)


def bytes_a_token(lm: Any) -> int:
    """Keys and values, copies of those of one layer (grown, and repeated for each head that shares them), and masks."""
    config = lm.config.get_text_config()
    shared_by = config.num_attention_heads // _num_kv_heads(config)
    layer = kv_bytes_a_token(lm) // config.num_hidden_layers
    return int(kv_bytes_a_token(lm) + layer * (1 + shared_by) + _MASK_BYTES * BLOCK_TOKENS)


def kv_bytes_a_token(lm: Any) -> int:
    """Of all layers."""
    config = lm.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * _num_kv_heads(config) * width * lm.dtype.itemsize)


def free_bytes(device: torch.device) -> int:
    """What can still be allocated: of a GPU, with what torch keeps for reuse; else of the machine or its container."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        most, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        return min(free, max(0, most - used))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def _num_kv_heads(config: Any) -> int:
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _num_weights(path: Path) -> int:
    """Numbers in a file of safetensors, by its head. Raises UserError for one that is cut or no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}). Export the model again.") from error
    return sum(int(torch.Size(shape).numel()) for shape in shapes)


def _size(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
