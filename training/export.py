"""A trained model in, a plain transformers folder out: config, safetensors, tokenizer; no code, nothing sharded."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

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
        config.max_position_embeddings = max(config.max_position_embeddings, _longest(recipe))
        config.dtype = dtype
        plain = {plain_name(name): state.pop(name).to(dtype) for name in list(state)}
        if config.tie_word_embeddings:
            plain.pop("lm_head.weight", None)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, dtype=dtype)
        empty.generation_config = _generation(Path(recipe.model.path), config)
        empty.save_pretrained(aside, state_dict=plain)
        _state_rope(aside)
        for name in _TOKENIZER:
            if (Path(recipe.model.path) / name).is_file():
                shutil.copy(Path(recipe.model.path) / name, aside / name)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    dist.barrier()
    return folder


def _longest(recipe: Training) -> int:
    from training.data import Folder

    return int(Folder.open(recipe.data.folders[0]).manifest["sequence_length_tokens"])


def _generation(source: Path, config: Any) -> Any:
    """How the model generates, with its end of text: as its folder says, or its configuration."""
    from transformers import GenerationConfig

    if (source / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(source)
    return GenerationConfig.from_model_config(config)


def _state_rope(folder: Path) -> None:
    """Write rope_theta, and what scales positions, where older readers look for them, too."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    parameters = dict(config.get("rope_parameters") or {})
    if "rope_theta" in parameters:
        config["rope_theta"] = parameters.pop("rope_theta")
        if parameters.get("rope_type", "default") != "default":
            config["rope_scaling"] = parameters
        path.write_text(json.dumps(config, indent=2) + "\n")
