"""A plan and packed folders in; a trained model's folder out: of a short stage, or of a method's long stage.

The trainer is the package's own, and the recipe `tiny` what all trainings are derived from. What was begun goes on, and
what is done is not done again.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from experiments.data import END_OF_TEXT, Folders
from experiments.plan import Plan


def short_run(out: Path, base: int) -> Path:
    """The run folder of a short stage."""
    return out / "trained" / f"short-{base}"


def long_run(out: Path, method: str, seed: int) -> Path:
    """The run folder of a method's long stage."""
    return out / "trained" / f"{method}-{seed}"


def train_short(plan: Plan, out: Path, base: int) -> Path:
    """From random weights on short rows; returns the model's folder."""
    folders = Folders(out)
    sections: dict[str, dict[str, Any]] = {
        "model": {
            "path": str(_write_model(plan, out)),
            "from_scratch": True,
            "seed": base,
            "rope_theta": plan.short_theta,
        },
        "data": {
            "folders": [str(each) for each in folders.short],
            "proportions": [1 - plan.repeats_ratio, plan.repeats_ratio],
            "seed": base,
        },
        "optimizer": {"steps": plan.short_steps, "learning_rate": plan.short_rate},
    }
    return _train(plan, short_run(out, base), sections, row_tokens=plan.short_tokens)


def train_long(plan: Plan, out: Path, method: str, seed: int) -> Path:
    """From the weights of the seed's base on a method's long documents; returns the model's folder.

    Nothing but the documents differs between methods: base, order of rows, steps and schedule are the same.
    """
    base = short_run(out, plan.base(seed)) / "model"
    sections: dict[str, dict[str, Any]] = {
        "model": {"path": str(base), "from_scratch": False, "rope_theta": plan.long_theta},
        "data": {"folders": [str(Folders(out).long(method, seed))], "seed": seed},
        "optimizer": {"steps": plan.long_steps, "learning_rate": plan.long_rate},
    }
    return _train(plan, long_run(out, method, seed), sections, row_tokens=plan.long_tokens)


def _train(plan: Plan, run: Path, sections: dict[str, dict[str, Any]], *, row_tokens: int) -> Path:
    from training import command
    from training.recipe import RECIPES

    if (run / "model" / "config.json").is_file():  # an export is renamed into its place when it is whole
        return run / "model"
    sections["batch"] = {"global_tokens": plan.batch_tokens, "micro_rows": plan.micro_tokens // row_tokens}
    sections["saving"] = {"every_steps": 200, "keep": 1}
    sections["model"]["precision"] = "bfloat16" if on_gpu() else "float32"
    tiny = RECIPES.load("tiny")
    changed = {name: dataclasses.replace(getattr(tiny, name), **fields) for name, fields in sections.items()}
    recipe = dataclasses.replace(tiny, output=str(run), **changed)
    with command.process_group():
        command.prepare(recipe)
        return command.train(recipe, progress=False)


def _write_model(plan: Plan, out: Path) -> Path:
    from training.tiny_model import write_tiny_model

    folder = write_tiny_model(
        out / "model",
        Folders(out).tokenizer,
        positions=plan.short_tokens,
        hidden_size=plan.hidden_size,
        num_layers=plan.num_layers,
    )
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": END_OF_TEXT}))
    return folder


def on_gpu() -> bool:
    """Whether trainings run on one."""
    import torch

    return bool(torch.cuda.is_available())
