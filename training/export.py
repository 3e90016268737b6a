"""A trained model in, a plain transformers folder out: config, safetensors, tokenizer; no code, nothing sharded."""

import json
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from training.config import Training
from training.model import PackedLM

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def export(model: PackedLM, recipe: Training, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write the model, its weights in `dtype`, aside and then at its place; returns the folder.

    The configuration says the RoPE base and positions that the model was trained with.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    if dist.get_rank() == 0:
        aside = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        config = model.lm.config
        config.max_position_embeddings = max(config.max_position_embeddings, _longest(recipe))
        config.dtype = dtype
        plain = {_plain(name): each.to(dtype) for name, each in state.items()}
        if config.tie_word_embeddings:
            plain.pop("lm_head.weight", None)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, dtype=dtype)
        empty.generation_config = GenerationConfig.from_model_config(config)
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


def _plain(name: str) -> str:
    return name.removeprefix("lm.").replace("._checkpoint_wrapped_module", "")


def _state_rope(folder: Path) -> None:
    """Write rope_theta where older readers look for it, too."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    if theta is not None:
        config["rope_theta"] = theta
        path.write_text(json.dumps(config, indent=2) + "\n")
