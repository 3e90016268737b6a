"""A trained model in, a plain transformers folder out: config, safetensors, tokenizer; no code, nothing sharded."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from nextlong.errors import UserError
from nextlong.packed_folder import Folder
from training.config import Training
from training.model import PackedLM, plain_name

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def export(model: PackedLM, recipe: Training, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write the model, its weights in `dtype`, aside and then at its place; returns the folder.

    The configuration says the RoPE base and positions that the model was trained with.
    """
    from transformers import AutoModelForCausalLM

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    if dist.get_rank() == 0:
        aside = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        config = model.lm.config
        config.max_position_embeddings = max(
            config.max_position_embeddings, Folder.open(recipe.data.folders[0]).length_tokens
        )
        config.dtype = dtype
        plain = {plain_name(name): state.pop(name).to(dtype) for name in list(state)}
        if config.tie_word_embeddings:
            plain.pop("lm_head.weight", None)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, dtype=dtype)
        empty.generation_config = generation_config(recipe, config)
        empty.save_pretrained(aside, state_dict=plain)
        _tell_older_readers(aside)
        for name in _TOKENIZER:
            if (recipe.model.folder / name).is_file():
                shutil.copy(recipe.model.folder / name, aside / name)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    dist.barrier()
    return folder


def generation_config(recipe: Training, config: Any) -> Any:
    """How the model generates, with its end of text: as its folder says, or its configuration.

    Raises UserError for a generation_config.json that cannot be read.
    """
    from transformers import GenerationConfig

    file = recipe.model.folder / "generation_config.json"
    if not file.is_file():
        return GenerationConfig.from_model_config(config)
    try:
        return GenerationConfig.from_pretrained(recipe.model.folder)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model.path: {file} cannot be read ({reason}). Mend it, or take it away.") from error


def _tell_older_readers(folder: Path) -> None:
    """Write the type of the weights, rope_theta, and what scales positions where transformers 4 looks for them, too."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["torch_dtype"] = config.get("dtype")
    parameters = dict(config.get("rope_parameters") or {})
    if "rope_theta" in parameters:
        config["rope_theta"] = parameters.pop("rope_theta")
        if parameters.get("rope_type", "default") != "default":
            config["rope_scaling"] = parameters
    path.write_text(json.dumps(config, indent=2) + "\n")
