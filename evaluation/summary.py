"""Rows of all measures in; the numbers that people look at, as a dict for programs and as a table, out."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evaluation import attention_probe, gain, perplexity
from evaluation.scoring import interval

Row = Mapping[str, Any]


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """{"scores", "needles", "positions", "gain", "attention"}: lists of means with intervals; None: not measured."""
    return {
        "scores": _scores(rows["answer"], ("task", "length_tokens")),
        "needles": _scores([row for row in rows["answer"] if row["task"] == "needle"], ("length_tokens", "depth")),
        "positions": perplexity.over_documents(rows["loss"]),
        "gain": gain.over_documents(rows["gain"]) if rows["gain"] else None,
        "attention": [
            {"length_tokens": length} | attention_probe.over_texts(group)
            for (length,), group in _grouped(rows["attention"], ("length_tokens",))
        ],
    }


def table(summary: Mapping[str, Any]) -> str:
    """For a terminal: means, and 95 % intervals in brackets."""
    parts = [_score_table(summary), _position_table(summary), _gain_lines(summary), _attention_table(summary)]
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))


def _scores(rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    told = []
    for key, group in _grouped(rows, names):
        found = interval([row["score"] for row in group])
        told.append(dict(zip(names, key, strict=True)) | found._asdict() | {"examples": len(group)})
    return told


def _grouped(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """In the order in which groups first come."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return list(groups.items())


def _score_table(summary: Row) -> Iterator[str]:
    found = {(each["task"], each["length_tokens"]): each for each in summary["scores"]}
    if found:
        lengths = list(dict.fromkeys(length for _, length in found))
        yield f"{'scores, of 100':<16}" + "".join(f"{length:>20,}" for length in lengths)
        for task in dict.fromkeys(task for task, _ in found):
            yield f"{task:<16}" + "".join(f"{_of_100(found.get((task, length))):>20}" for length in lengths)


def _of_100(each: Row | None) -> str:
    return "-" if each is None else with_interval(each, lambda value: f"{100 * value:.0f}")


def with_interval(each: Row, told: Callable[[float], str]) -> str:
    """Such as 50 [24, 76]."""
    if each["low"] is None:
        return told(each["mean"])
    return f"{told(each['mean'])} [{told(each['low'])}, {told(each['high'])}]"


def _position_table(summary: Row) -> Iterator[str]:
    positions = summary["positions"]
    if positions:
        yield f"{'loss at tokens':<24}{'nats a token':>24}   ({positions[0]['documents']} documents)"
        for each in positions:
            place = f"{each['first']:,} - {each['last']:,}"
            yield f"{place:<24}{with_interval(each, lambda value: f'{value:.3f}'):>24}"


def _gain_lines(summary: Row) -> Iterator[str]:
    found = summary["gain"]
    if found:
        yield (
            f"gain from distant context: {with_interval(found, lambda value: f'{value:+.4f}')} nats a token "
            f"({found['meta_chunks']:,} meta-chunks of {found['documents']} documents)"
        )
        yield f"  loss with all that comes before {found['whole']:.4f}, with only what is near {found['near']:.4f}"


def _attention_table(summary: Row) -> Iterator[str]:
    if summary["attention"]:
        yield f"{'attention, % to':<16}" + "".join(f"{part.replace('_', ' '):>20}" for part in attention_probe.PARTS)
        for each in summary["attention"]:
            shares = [each["over_layers"][part] for part in attention_probe.PARTS]
            told = "".join(f"{with_interval(share, lambda value: f'{100 * value:.1f}'):>20}" for share in shares)
            yield f"{each['length_tokens']:<16,}{told}"
