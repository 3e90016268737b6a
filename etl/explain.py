"""A mined work folder in, what its near-duplicate thresholds drop out: counts by threshold, and pairs next to them."""

from typing import Any

from etl.origins import Origin, chunk_origins
from etl.show import first_words
from etl.terminal import printable
from etl.work import Work
from nextlong.errors import UserError

_SHOWN_CHARS = 84
_NAMES = {
    "similarity": ("cosine similarity", "mining.near_duplicate_similarity"),
    "overlap": ("overlap of word 5-grams", "mining.near_duplicate_overlap"),
}


def explain_near_duplicates(work: Work) -> str:
    """The effect of each rule as text. Raises UserError where nothing was mined, or no rule was on."""
    manifest = work["mine"].manifest() if "mine" in work.stages else None
    if manifest is None:
        raise UserError(f"{work.path} holds no mined candidates yet: its stage 'mine' is not finished.")
    rules = manifest["values"].get("near_duplicates")
    if not rules:
        raise UserError(
            f"{work.path} was made with no rule against near-duplicates. For strategy nextlong set "
            f"mining.near_duplicate_similarity (by embeddings only) or mining.near_duplicate_overlap."
        )
    examples = [each for facts in rules.values() for side in ("just_above", "just_below") for each in facts[side]]
    origins = chunk_origins(work, (chunk for _, *pair in examples for chunk in pair))
    return "\n\n".join(_explain(name, facts, origins) for name, facts in rules.items())


def _explain(name: str, facts: dict[str, Any], origins: dict[int, Origin]) -> str:
    title, setting = _NAMES[name]
    threshold, compared = facts["threshold"], facts["compared"]
    lines = [
        f"{title}: {setting} = {threshold}, {compared:,} candidates compared",
        f"  {'threshold':>9}  {'candidates at or above':>22}  {'share':>8}",
    ]
    for level, number in facts["at_or_above"].items():
        mark = "  <- this run drops them" if float(level) == threshold else ""
        lines.append(f"  {float(level):>9g}  {number:>22,}  {number / max(1, compared):>8.3%}{mark}")
    for side, what in (("just_above", "dropped, nearest the threshold"), ("just_below", "kept, nearest the threshold")):
        lines.append(f"  {what}:" + ("" if facts[side] else " none"))
        for value, meta_chunk, candidate in facts[side]:
            lines += [f"    {value:.3f}  {_text(origins[meta_chunk])}", f"           {_text(origins[candidate])}"]
    return "\n".join(lines)


def _text(origin: Origin) -> str:
    return f'{printable(origin.source_id)}, chunk {origin.chunk_index}: "{first_words(origin.text, _SHOWN_CHARS)}"'
