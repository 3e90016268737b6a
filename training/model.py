"""A folder of transformers in, a causal LM sharded over all ranks out, with another RoPE base where one is asked for.

It is built without memory (meta), sharded, and then loaded: no rank ever holds the whole model. Master weights are
float32; computation is bfloat16 where that is asked for.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from nextlong.errors import UserError
from training.attention import NAME, register
from training.boundaries import Batch
from training.config import Model, check_heads
from training.loss import linear_cross_entropy
from training.parallel import Ranks


class PackedLM(nn.Module):
    """A causal LM of transformers whose forward is the loss of a batch, so that the head stays in one sharded unit."""

    def __init__(self, lm: Any, ranks: Ranks) -> None:
        super().__init__()
        self.lm = lm
        self._ranks = ranks

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum of the losses of this rank's targets, losses [T / sp])."""
        ranks = self._ranks
        part = slice(None)
        if ranks.sequence_size > 1:
            length = len(batch.input_ids) // ranks.sequence_size
            part = slice(ranks.sequence_rank * length, (ranks.sequence_rank + 1) * length)
        hidden = self.lm.model(
            input_ids=batch.input_ids[None, part],
            position_ids=batch.position_ids[None, part],
            use_cache=False,
            cu_seqlens=batch.cu_seqlens,
            max_seqlen=batch.max_seqlen,
            sequence_group=ranks.sequence_group,
        ).last_hidden_state[0]
        weights = None if batch.weights is None else batch.weights[part]
        return linear_cross_entropy(hidden, self.lm.lm_head.weight, batch.targets[part], weights)


def read_config(settings: Model) -> Any:
    """The configuration of a model, with the RoPE base asked for.

    Raises UserError for a folder without one, and for a model whose attention or head is another than ours.
    """
    from transformers import AutoConfig

    path = settings.folder
    if not (path / "config.json").is_file():
        raise UserError(
            f"model.path {path} is no folder of transformers: it has no config.json. "
            f"Give the folder of a model; docs/training.md makes a small one."
        )
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model.path {path}: there is no model that can be read ({reason}).") from error
    if settings.rope_theta is not None:
        parameters = dict(getattr(config, "rope_parameters", None) or {"rope_type": "default"})
        config.rope_parameters = parameters | {"rope_theta": float(settings.rope_theta)}
    _check_kind(path, config)
    return config


def _check_kind(path: Path, config: Any) -> None:
    """What would be left out without a word, or fail late, is refused."""
    if missing := [name for name in _NEEDED if not hasattr(config, name)]:
        raise UserError(f"model.path {path} is a {config.model_type}, whose config.json states no {missing[0]}.")
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise UserError(
            f"model.path {path} attends to a sliding window of {config.sliding_window} tokens, which hides the distant "
            f"context that long documents train. Set sliding_window to null in its config.json."
        )
    if others := sorted(set(getattr(config, "layer_types", None) or []) - {"full_attention"}):
        raise UserError(f"model.path {path} has layers of {others[0]}, but only full attention can be trained.")
    if getattr(config, "attention_dropout", 0):
        raise UserError(
            f"model.path {path} has attention_dropout {config.attention_dropout}, which attention inside documents "
            f"does not do. Set it to 0 in its config.json."
        )
    for name, neutral in _HEAD.items():
        if (found := getattr(config, name, None)) not in (None, neutral):
            raise UserError(f"model.path {path} has {name} {found}, which the loss made in blocks does not know.")


_NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
_HEAD = {"final_logit_softcapping": None, "logit_scale": 1, "logits_scaling": 1}
"""What some models do to logits, and the value that does nothing."""


def build(settings: Model, ranks: Ranks, *, is_filled: bool = True) -> PackedLM:
    """The model on all ranks; not is_filled: its weights are any numbers, since a checkpoint has them.

    Raises UserError for heads that sp does not divide, and weights that are not those of the configuration.
    """
    from transformers import AutoModelForCausalLM

    register()
    config = read_config(settings)
    num_heads = config.num_attention_heads
    check_heads(num_heads, getattr(config, "num_key_value_heads", num_heads), ranks.sequence_size)
    try:
        with torch.device("meta"):
            lm = AutoModelForCausalLM.from_config(config, attn_implementation=NAME, dtype=settings.master_dtype)
    except ValueError as error:
        raise UserError(
            f"model.path {settings.path} is no causal LM ({' '.join(str(error).split())[:200]})."
        ) from error
    _check_parts(settings, lm)
    lm.train()
    model = PackedLM(lm, ranks)
    if settings.checkpointing:
        for place, layer in enumerate(lm.model.layers):
            lm.model.layers[place] = checkpoint_wrapper(layer)
    _shard(model, settings, ranks)
    model.to_empty(device=ranks.device)
    _restore_buffers(lm, config, ranks.device)
    if is_filled and settings.from_scratch:
        _initialize(model, settings.seed, getattr(config, "initializer_range", 0.02))
    elif is_filled:
        load_weights(model, settings.folder)
    if config.tie_word_embeddings:
        lm.tie_weights()
    return model


def _check_parts(settings: Model, lm: nn.Module) -> None:
    """Raise UserError for a model that is not built as Llama is: what is not found there would be left out."""
    body, head = getattr(lm, "model", None), getattr(lm, "lm_head", None)
    if not hasattr(body, "layers") or not hasattr(body, "rotary_emb") or head is None or head.bias is not None:
        raise UserError(
            f"model.path {settings.path}: {type(lm).__name__} is not built of model.layers, model.rotary_emb and an "
            f"lm_head without bias, as Llama, Qwen and Mistral are."
        )
    kept = lm.state_dict().keys()
    if lost := [name for name, _ in lm.named_buffers() if name not in kept and "rotary_emb" not in name]:
        raise UserError(f"model.path {settings.path}: nothing is known of its buffer {lost[0]}, which no file holds.")


def _shard(model: PackedLM, settings: Model, ranks: Ranks) -> None:
    """Each layer is a unit, and all the rest: embedding, last norm and head."""
    numbers = {"param_dtype": settings.dtype, "reduce_dtype": settings.master_dtype}
    mesh = _shard_mesh(ranks)
    for layer in model.lm.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=MixedPrecisionPolicy(**numbers))
    # Inputs of the root are no activations: the weights of targets would be rounded to bfloat16.
    fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(**numbers, cast_forward_inputs=False))


def _shard_mesh(ranks: Ranks) -> Any:
    return ranks.mesh if ranks.mesh.size(0) > 1 else ranks.mesh["shard"]


def _restore_buffers(lm: Any, config: Any, device: torch.device) -> None:
    """Compute what is in no checkpoint: the rotary frequencies, which to_empty leaves as garbage, in float32."""
    rotary = type(lm.model.rotary_emb)(config)
    for name, buffer in rotary.named_buffers():
        setattr(lm.model.rotary_emb, name, buffer.to(device))
    lm.model.rotary_emb.attention_scaling = rotary.attention_scaling
    check_rope(lm, config)


def check_rope(lm: Any, config: Any) -> None:
    """Raise RuntimeError where rotary frequencies are not those of the base in the configuration."""
    parameters = config.rope_parameters
    if parameters.get("rope_type", "default") != "default":
        return
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    base = float(parameters["rope_theta"])
    expected = base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    found = lm.model.rotary_emb.inv_freq.cpu().double()
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-5, atol=0):
        raise RuntimeError(f"the rotary frequencies of the model are not those of the base {base:,}")


def _initialize(model: PackedLM, seed: int, spread: float) -> None:
    """Weights that depend on names and the seed alone, not on the ranks: normal matrices, norms of 1, biases of 0."""
    import zlib

    from torch.distributed.tensor import DTensor, distribute_tensor

    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(plain_name(name).encode()))
        if parameter.ndim >= 2:
            full = torch.normal(0.0, spread, parameter.shape, generator=generator, dtype=torch.float32)
        else:
            full = torch.zeros(parameter.shape) if name.endswith("bias") else torch.ones(parameter.shape)
        full = full.to(parameter.dtype)
        with torch.no_grad():
            if isinstance(parameter, DTensor):
                full = distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements)
            parameter.copy_(full)


def plain_name(name: str) -> str:
    """A parameter's name without the wrappers around layers."""
    return name.removeprefix("lm.").replace("._checkpoint_wrapped_module", "")


def load_weights(model: PackedLM, folder: Path) -> None:
    """Fill the model with the safetensors of a folder, whatever their precision; each rank reads its own part.

    Raises UserError for a folder without them, or with other ones.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.checkpoint.api import CheckpointException

    if not list(folder.glob("*.safetensors")):
        raise UserError(f"model.path {folder} holds no safetensors. Save the model with save_pretrained first.")
    state = {plain_name(name): each for name, each in model.state_dict().items()}
    if model.lm.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    try:
        dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder)))
    except CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        raise UserError(
            f"model.path {folder}: its weights are not those that its config.json describes "
            f"({' '.join(str(reason).split())[:300]})."
        ) from error


def num_matrix_parameters(model: PackedLM) -> int:
    """Of the whole model, over all ranks, without a table of embeddings that is only looked up."""
    looked_up = 0 if model.lm.config.tie_word_embeddings else model.lm.get_input_embeddings().weight.numel()
    return int(sum(each.numel() for each in model.parameters()) - looked_up)
