"""Facts in, the figures that stand first on the page out, as text."""

from typing import Any

from etl.report.facts import Facts


def method(facts: Facts) -> str:
    """How the long documents are made, in a sentence."""
    strategy, lengths = (facts.setting("synthesis", name) for name in ("strategy", "target_length_tokens"))
    lengths = lengths if isinstance(lengths, list) else [lengths]
    told = f"Long documents of {' and '.join(_number(length) for length in lengths)} tokens, strategy {strategy}"
    if strategy == "nextlong":
        told += f" with negatives: {facts.setting('synthesis', 'negatives')}"
    return f"{told}, seed {facts.setting('synthesis', 'seed')}."


def headline(facts: Facts) -> list[tuple[str, str]]:
    """(what, number) of what the finished stages tell."""
    found = [
        ("documents read", _count(facts, "read", "documents", "read")),
        ("of them kept", _count(facts, "read", "documents", "kept")),
        ("chunks", _count(facts, "chunk", "chunks", "kept")),
        ("tokens of the corpus", _count(facts, "chunk", "tokens", "kept")),
        ("long documents", facts.stages["interleave"].rows if "interleave" in facts.stages else None),
        ("tokens in them", _count(facts, "interleave", "tokens", "kept")),
        ("packed sequences", facts.stages["pack"].rows if "pack" in facts.stages else None),
        ("different chunks in them", facts.value("interleave", "distinct_chunks")),
        ("different documents in them", facts.value("interleave", "distinct_documents")),
    ]
    tiles = [(what, _number(number)) for what, number in found if number is not None]
    is_bm25 = facts.setting("mining", "retrieval") == "bm25"
    shares = [
        ("share of meta text", facts.value("interleave", "meta_ratio"), ".1%"),
        ("mean BM25 score" if is_bm25 else "mean similarity", facts.value("interleave", "mean_similarity"), ".3f"),
        ("tokens between meta-chunks", facts.value("interleave", "mean_meta_distance_tokens"), ",.0f"),
        ("recall of the index", facts.value("index", "recall"), ".3f"),
        ("uses of an inserted chunk", facts.value("interleave", "uses_per_chunk"), ".2f"),
    ]
    tiles += [(what, format(number, shape)) for what, number, shape in shares if number is not None]
    seconds = [stage.seconds for stage in facts.stages.values() if stage.seconds]
    return tiles + ([("seconds of all stages", f"{sum(seconds):,.0f}")] if seconds else [])


def index_facts(facts: Facts) -> list[tuple[str, str]]:
    """(what, value) of the index; empty where nothing is looked up."""
    if "index" not in facts.stages or "skipped" in facts.stages["index"].values:
        return []
    names = {
        "retrieval": "kind",
        "factory": "FAISS factory",
        "num_chunks": "vectors",
        "num_texts": "texts",
        "dimensions": "dimensions",
        "nprobe": "lists searched (nprobe)",
        "rerank_ratio": "fetched for each wanted, then scored exactly",
        "recall_before_reranking": "recall before that",
        "recall": "recall against exact search",
        "recall_top_k": "of so many neighbours",
        "recall_queries": "measured on queries",
    }
    values = facts.stages["index"].values
    return [(told, _number(values[name])) for name, told in names.items() if values.get(name) is not None]


def _count(facts: Facts, stage: str, unit: str, what: str) -> int | None:
    count = facts.stages[stage].account.counts.get(unit) if stage in facts.stages else None
    number: int | None = getattr(count, what, None)
    return number


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
