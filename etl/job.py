"""A recipe and everything it names, found: what the stages receive."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from etl import decontaminate
from etl.inputs import InputFile, identify, list_files
from etl.lookup import open_tokenizer
from etl.recipe import Recipe
from etl.work import Work
from nextlong.config import AUTO_CANDIDATES
from nextlong.errors import UserError
from nextlong.keywords import QueryModel, load_stop_phrases
from nextlong.model_folder import fingerprint, resolve_model
from nextlong.tokenizing import resolve_tokenizer

_INTERLEAVED = ("position", "skip_top", "max_uses_per_chunk")  # settings of nextlong that mining does not know
_QUEST = ("query_model", "keyword_min_score", "keyword_stop_phrases", "keyword_oversampling")


@dataclasses.dataclass(frozen=True)
class Job:
    """A recipe, its input files, tokenizer and model found, and its work folder."""

    recipe: Recipe
    files: list[InputFile]
    evaluation_files: list[InputFile]
    tokenizer_file: Path
    model_folder: Path | None
    """None: the recipe needs no embeddings."""
    work: Work


def prepare(recipe: Recipe) -> Job:
    """Find everything a recipe names. Raises UserError for what is missing, before any work."""
    files = list_files(recipe.input)
    evaluation_files = decontaminate.evaluation_files(recipe.decontamination)
    tokenizer_file = resolve_tokenizer(recipe.tokenizer).absolute()
    model_folder = _model_folder(recipe)
    settings = {
        "read": _without(dataclasses.asdict(recipe.input), "path", "max_decompressed_bytes")
        | {"files": identify(files)}
        | decontaminate.fingerprint_settings(recipe.decontamination, evaluation_files),
        "chunk": dataclasses.asdict(recipe.chunking) | {"tokenizer": open_tokenizer(str(tokenizer_file)).fingerprint},
        "embed": _embed_settings(recipe, model_folder),
        "index": _index_settings(recipe),
        **_synthesis_settings(recipe),
        "pack": dataclasses.asdict(recipe.packing),
    }
    work = Work.of_settings(Path(recipe.output).expanduser().absolute(), settings)
    return Job(recipe, files, evaluation_files, tokenizer_file, model_folder, work)


def needs_embeddings(recipe: Recipe) -> bool:
    """Whether anything of the recipe is looked up by embeddings."""
    return recipe.synthesis.retrieves is not None and recipe.mining.retrieval == "embeddings"


def _model_folder(recipe: Recipe) -> Path | None:
    if not needs_embeddings(recipe):
        return None
    if recipe.embedding.model is None:
        raise UserError(
            f"embedding.model is not set, but synthesis.strategy={recipe.synthesis.strategy} looks up neighbours by "
            f"embeddings. Give a model folder or hub id, or set mining.retrieval to bm25, which needs no model."
        )
    return resolve_model(recipe.embedding.model, recipe.embedding.file).absolute()


def _embed_settings(recipe: Recipe, model_folder: Path | None) -> dict[str, Any]:
    if model_folder is None:
        return {"skipped": "nothing is looked up by embeddings"}
    plain = _without(dataclasses.asdict(recipe.embedding), "model", "device", "batch_tokens")  # where and how fast
    return plain | {"model": fingerprint(model_folder, recipe.embedding)}


def _index_settings(recipe: Recipe) -> dict[str, Any]:
    units, retrieval = recipe.synthesis.retrieves, recipe.mining.retrieval
    if units is None:
        return {"skipped": "nothing is looked up"}
    plain = _without(dataclasses.asdict(recipe.index), "search", "max_mapped_bytes")  # how, not what
    plain["recall_top_k"] = recall_top_k(recipe)
    of_faiss = plain if retrieval == "embeddings" else {}
    return of_faiss | {"retrieval": retrieval, "units": units}


def _synthesis_settings(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What decides the candidates, and what decides the long documents made of them: few settings decide the former."""
    plain, mining = dataclasses.asdict(recipe.synthesis), dataclasses.asdict(recipe.mining)
    strategy = plain["strategy"]
    if strategy == "nextlong":
        interleaved = {name: plain[name] for name in ("negatives", *_INTERLEAVED)}
        drawn = plain["negatives"] if plain["negatives"] in ("random", "self_repeat") else "neighbours"
        return {"mine": _without(plain, *interleaved, *_QUEST) | mining | {"drawn": drawn}, "interleave": interleaved}
    names = ("strategy", "target_length_tokens", "num_samples", "seed", "docs_per_part")
    concatenated = {name: plain[name] for name in names}
    if strategy == "standard":
        return {"mine": {"skipped": "nothing is looked up"}, "interleave": concatenated}
    if strategy == "quest":
        concatenated["keyword_oversampling"] = plain["keyword_oversampling"]
        return {"mine": _keyword_settings(plain), "interleave": concatenated}
    return {"mine": {"num_candidates": least_candidates(recipe)}, "interleave": concatenated}


def _keyword_settings(synthesis: dict[str, Any]) -> dict[str, Any]:
    stop_phrases = "\n".join(sorted(load_stop_phrases(synthesis["keyword_stop_phrases"])))
    model = synthesis["query_model"]
    return {
        "keyword_min_score": synthesis["keyword_min_score"],
        "keyword_stop_phrases": hashlib.sha256(stop_phrases.encode()).hexdigest(),
        "query_model": model and QueryModel.fingerprint(model),
    }


def _without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def recall_top_k(recipe: Recipe) -> int:
    """Neighbours that an index is tuned for: as set, or as many as are looked up; 512 by default for all strategies."""
    for number in (recipe.index.recall_top_k, recipe.mining.num_candidates):
        if number != "auto":
            return number
    return AUTO_CANDIDATES


def least_candidates(recipe: Recipe) -> int:
    """Neighbours that are looked up, of a document or at least of a meta-chunk: as set, or 512, for iclm 50."""
    number = recipe.mining.num_candidates
    automatic = 50 if recipe.synthesis.strategy == "iclm" else AUTO_CANDIDATES
    return automatic if number == "auto" else number
