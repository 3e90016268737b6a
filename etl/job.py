"""A recipe made ready to run: its files found, its tokenizer and model at hand, its work folder fingerprinted."""

import dataclasses
from pathlib import Path

from etl import decontaminate
from etl.inputs import InputFile, identify, list_files
from etl.recipe import Recipe
from etl.work import Work
from nextlong.model_folder import fingerprint, resolve_model
from nextlong.tokenizing import Tokenizer, resolve_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every stage is given; paths are absolute, so that workers elsewhere find the same files."""

    recipe: Recipe
    files: list[InputFile]
    evaluation_files: list[InputFile]
    tokenizer_file: Path
    model_folder: Path
    work: Work


def prepare(recipe: Recipe) -> Job:
    """Find everything a recipe names. Raises UserError for what is missing, before any work."""
    files = list_files(recipe.input)
    evaluation_files = decontaminate.evaluation_files(recipe.decontamination)
    tokenizer_file = resolve_tokenizer(recipe.tokenizer).absolute()
    model_folder = resolve_model(recipe.embedding.model, recipe.embedding.file).absolute()
    plain = dataclasses.asdict(recipe)
    del plain["input"]["path"]
    for name in ("model", "device", "batch_tokens"):  # decide where and how fast, not what
        del plain["embedding"][name]
    position = plain["synthesis"].pop("position")
    settings = {
        "read": plain["input"]
        | {"files": identify(files)}
        | decontaminate.fingerprint_settings(recipe.decontamination, evaluation_files),
        "chunk": plain["chunking"] | {"tokenizer": Tokenizer(tokenizer_file).fingerprint},
        "embed": plain["embedding"] | {"model": fingerprint(model_folder, recipe.embedding)},
        "index": plain["index"],
        "mine": plain["mining"] | plain["synthesis"],
        "interleave": {"position": position},
        "pack": plain["packing"],
    }
    work = Work.of_settings(Path(recipe.output).expanduser().absolute(), settings)
    return Job(
        recipe=recipe,
        files=files,
        evaluation_files=evaluation_files,
        tokenizer_file=tokenizer_file,
        model_folder=model_folder,
        work=work,
    )
