"""Examples in; files that RULER's and HELMET's own programs read, and texts to keep out of training data, out.

Their field names and folders, as facts: NVIDIA/RULER c3f5e3b (2026-07-22) and princeton-nlp/HELMET 4526dfb
(2025-04-09). The sentences stay ours, so scores are not comparable with published ones: they compare models.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as FastTokenizer

from evaluation.example import Example
from evaluation.haystack import NEEDLES, NOISE
from evaluation.tasks import door_codes, frequent_words, key_value, variables
from evaluation.token_counts import TokenCounts
from nextlong.errors import UserError

_PREFACES = {
    "needle": door_codes.PREFACE,
    "multikey": door_codes.PREFACE,
    "multivalue": door_codes.PREFACE,
    "variables": variables.PREFACE,
    "frequent_words": frequent_words.PREFACE,
    "key_value": key_value.PREFACE,
}
_DOORS = ("needle", "multikey", "multivalue")
_NUM_DEMOS = 5  # HELMET shows as many as its configuration's shots, 2 in the published one


def write_ruler(folder: Path, made: Sequence[Example], tokenizer: FastTokenizer) -> list[Path]:
    """Write folder/LENGTH/data/TASK/validation.jsonl, as RULER's run.sh lays out benchmark_root/MODEL/synthetic.

    A row: index, input, outputs, length (tokens with those to generate), length_w_model_temp (the same: no chat
    template), answer_prefix (which its prediction puts after input), and, of needles, token_position_answer (tokens of
    input before the first answer). Its prepare.py makes nothing where a file has as many lines as NUM_SAMPLES. It has
    no task for key_value. Raises UserError where no example is of a task of RULER.
    """
    tokens = TokenCounts(tokenizer)

    def row(index: int, each: Example) -> dict[str, Any]:
        asked, _, prefix = each.question.rpartition("\n")
        text = f"{each.context}{asked}\n"
        length = tokens.whole(text + prefix) + each.max_new_tokens
        found = {"index": index, "input": text, "outputs": list(each.answers), "length": length}
        found |= {"length_w_model_temp": length, "answer_prefix": prefix}
        if each.task in _DOORS:
            place = text.index(each.answers[0])
            found["token_position_answer"] = int(tokens.before(text, np.array([place]))[0])
        return found

    def place(each: Example) -> Path | None:
        name = _ruler_name(each)
        return None if name is None else folder / str(each.length_tokens) / "data" / name / "validation.jsonl"

    return _write(made, place, row, "RULER")


def write_helmet(folder: Path, made: Sequence[Example]) -> list[Path]:
    """Write folder/ruler/TASK/validation_LENGTH.jsonl and folder/json_kv/validation_LENGTH.jsonl, for its test_files.

    A row of its ruler loader: context, query, type_needle_v, num_v, example ("": none is shown), answer, outputs;
    HELMET puts its own instruction and question around, as ruler_niah_s_1 and so on. Of json_kv: context (the object),
    question (the key), answer, demos (other pairs of the object), num_kvs. Its prompts are some tokens longer than
    ours: set input_max_length 200 tokens above LENGTH, else it cuts the context's end.
    """

    def place(each: Example) -> Path:
        name = "json_kv" if each.task == "key_value" else f"ruler/{_ruler_name(each)}"
        return folder / name / f"validation_{each.length_tokens}.jsonl"

    return _write(made, place, lambda index, each: (_pairs if each.task == "key_value" else _ruler)(each), "HELMET")


def write_texts(path: Path, made: Iterable[Example]) -> Path:
    """Write jsonl with a column `text`, each prompt once, as a recipe's decontamination.path takes it."""
    texts = dict.fromkeys(each.context + each.question for each in made)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return path


def _ruler_name(example: Example) -> str | None:
    """RULER's task of the same kind: noise is the hay of niah_single_1, needles of niah_multikey_2, else essays."""
    if example.task == "needle":
        return {NOISE: "niah_single_1", NEEDLES: "niah_multikey_2"}.get(example.hay, "niah_single_2")
    names = {"multikey": "niah_multikey_1", "multivalue": "niah_multivalue", "variables": "vt", "frequent_words": "fwe"}
    return names.get(example.task)


def _ruler(example: Example) -> dict[str, Any]:
    several = example.task == "multivalue"
    return {
        "context": _bare(example),
        "query": example.query,
        "type_needle_v": door_codes.SEVERAL if several else door_codes.ONE if example.task in _DOORS else "",
        "num_v": len(example.answers),
        "example": "",
        "answer": list(example.answers),
        "outputs": list(example.answers),
    }


def _pairs(example: Example) -> dict[str, Any]:
    context = _bare(example)
    others = [pair for pair in json.loads(context).items() if pair[0] not in (example.query, key_value.NOTE)]
    return {
        "context": context,
        "question": example.query,
        "answer": example.answers[0],
        "demos": others[:_NUM_DEMOS],
        "num_kvs": len(others) + 1,
    }


def _bare(example: Example) -> str:
    """The text without our instruction."""
    return example.context.removeprefix(_PREFACES[example.task]).rstrip("\n")


def _write(
    made: Sequence[Example],
    place: Callable[[Example], Path | None],
    row: Callable[[int, Example], dict[str, Any]],
    suite: str,
) -> list[Path]:
    """Write the rows of each file; index: which of its file's."""
    files: dict[Path, list[str]] = {}
    for each in made:
        path = place(each)
        if path is not None:
            lines = files.setdefault(path, [])
            lines.append(json.dumps(row(len(lines), each)) + "\n")
    if not files:
        raise UserError(f"none of these examples is of a task that {suite} has.")
    for path, lines in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    return sorted(files)
