"""A work folder in, all that its page tells out: accounts and values of its stages, and samples of bounded size."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from etl.parts import read_json
from etl.report.long_documents import LongDocument, draw_long_documents
from etl.report.samples import Sample, chunk_samples, hardness_samples
from etl.work import RECIPE_FILE, STAGES, Work
from nextlong.accounting import Account
from nextlong.errors import UserError


class Stage(NamedTuple):
    """A finished stage."""

    rows: int
    num_parts: int
    account: Account
    values: dict[str, Any]
    seconds: float | None
    """None: not known, as where the stage was taken from another folder."""
    peak_memory_bytes: int | None
    """Of the process that took most; None: not known."""


class Facts(NamedTuple):
    """What a page tells of a work folder."""

    name: str
    stages: dict[str, Stage]
    """Those that are finished."""
    missing: list[str]
    """Those that are not."""
    recipe: dict[str, Any]
    recipe_yaml: str
    versions: dict[str, str]
    samples: dict[str, Sample]
    """document_tokens, chunk_tokens, meta_distances, meta_ratios: those that the finished stages have."""
    long_documents: list[LongDocument]

    def setting(self, section: str, name: str) -> Any:
        """A setting of the recipe; None where it has none."""
        found = self.recipe.get(section)
        return found.get(name) if isinstance(found, dict) else None

    def value(self, stage: str, name: str) -> Any:
        """What a stage noted under a name; None where it is not finished or noted nothing."""
        return self.stages[stage].values.get(name) if stage in self.stages else None


def read_facts(work: Work) -> Facts:
    """Read the manifests of all finished stages, and a bounded number of rows of two of them.

    Raises UserError for a recipe or a manifest that is none.
    """
    manifests = {name: stage.manifest() for name, stage in work.stages.items()}
    finished = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    spent = (read_json(work.path / "summary.json") or {}).get("stages", {})
    recipe_yaml = (work.path / RECIPE_FILE).read_text(errors="replace")
    recipe = _recipe(work.path, recipe_yaml)
    samples = (chunk_samples(work) if "chunk" in finished else {}) | (
        hardness_samples(work) if "interleave" in finished else {}
    )
    return Facts(
        name=work.path.absolute().name,
        stages={name: _stage(manifest, spent.get(name, {})) for name, manifest in finished.items()},
        missing=[name for name in STAGES if name not in finished],
        recipe=recipe,
        recipe_yaml=recipe_yaml,
        versions={name: text for manifest in finished.values() for name, text in manifest["versions"].items()},
        samples=samples,
        long_documents=draw_long_documents(work, recipe.get("tokenizer")) if "interleave" in finished else [],
    )


def _recipe(folder: Path, text: str) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"{folder / RECIPE_FILE} is no YAML ({json.dumps(str(error))}). Run the recipe again."
        ) from error
    if not isinstance(recipe, dict):
        raise UserError(f"{folder / RECIPE_FILE} holds no recipe. Run the recipe again.")
    return recipe


def _stage(manifest: dict[str, Any], spent: dict[str, Any]) -> Stage:
    return Stage(
        rows=manifest["rows"],
        num_parts=len(manifest["parts"]),
        account=Account.from_dict(manifest["account"]),
        values=manifest["values"],
        seconds=spent.get("seconds") or None,
        peak_memory_bytes=spent.get("peak_memory_bytes"),
    )
