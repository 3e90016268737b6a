"""A model's folder in; what HELMET, RULER and LongBench v2 would stumble over out, each with its remedy.

As read in their programs: HELMET 4526dfb (2025-04-09), RULER c3f5e3b (2026-07-22), LongBench 2e00731 (2025-01-15).
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nextlong.errors import UserError

_PAID = {"gpt": "OpenAI", "claude": "Anthropic", "gemini": "Google", "togetherapi": "Together"}
_OWN_END = "state the tokenizer's own"
_SAMPLE = "One sentence, and the number 12345.\n  Another, indented: naïve café.\n"


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Literal["ok", "warning", "fault"]
    """fault: one of the three cannot run, or measures another thing; warning: it depends on how it is called."""
    about: str
    remedy: str = ""


def check_export(folder: Path, *, length_tokens: int | None = None) -> list[Finding]:
    """Look at a folder; nothing of it is run. length_tokens: of the longest test; None: the model's positions.

    Raises UserError where there is no such folder, or nothing of a model in it.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}. Give the folder of a model, such as a training exports.")
    if not any((folder / name).exists() for name in ("config.json", "tokenizer.json")):
        raise UserError(f"{folder} is no exported model: it has neither config.json nor tokenizer.json.")
    if length_tokens is not None and length_tokens < 1:
        raise UserError(f"--length is {length_tokens}, but it must be at least 1.")
    config = _json(folder / "config.json")
    parts = (
        _config(config, length_tokens),
        _generation(folder, config),
        _weights(folder),
        _tokenizer(folder, config),
        _chat_template(folder),
        _code(folder, config),
        _names(folder),
    )
    return [finding for part in parts for finding in part]


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """For people; at the end, how many there are of each level."""
    for each in findings:
        yield f"{each.level:<8} {each.about}" + (f"\n{'':<9}-> {each.remedy}" if each.remedy else "")
    counts = {level: sum(each.level == level for each in findings) for level in ("ok", "warning", "fault")}
    yield f"\n{counts['ok']} ok, {counts['warning']} warnings, {counts['fault']} faults"


def _config(config: Any, length_tokens: int | None) -> Iterator[Finding]:
    if not isinstance(config, dict):
        yield Finding("fault", "config.json is not there, or no JSON object", "export the model again")
        return
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and str(named[0]).endswith("ForCausalLM"):
        yield Finding("ok", f"config.json names the architecture {named[0]}")
    else:
        yield Finding("fault", f"config.json has architectures {named!r}", "name one ...ForCausalLM, for vLLM")
    yield _positions(config.get("max_position_embeddings"), length_tokens)
    yield from _rope(config)
    if config.get("torch_dtype"):
        yield Finding("ok", f"config.json states torch_dtype {config['torch_dtype']}")
    else:
        remedy = 'add "torch_dtype": "bfloat16" beside "dtype"'
        yield Finding("warning", "config.json states no torch_dtype: transformers before 4.56 reads float32", remedy)


def _positions(positions: Any, length_tokens: int | None) -> Finding:
    if not isinstance(positions, int) or positions < 1:
        return Finding("fault", "config.json states no max_position_embeddings", "state the longest text it can read")
    if length_tokens is not None and length_tokens > positions:
        about = f"a test of {length_tokens:,} tokens is longer than the model's {positions:,} positions"
        return Finding("fault", about, "test shorter ones, or train for longer texts")
    return Finding("ok", f"config.json has {positions:,} positions")


_OLD_ROPE_THETA = 10_000  # of transformers 4, where config.json states none at its top level


def _rope(config: dict[str, Any]) -> Iterator[Finding]:
    parameters = config.get("rope_parameters")
    new = parameters.get("rope_theta") if isinstance(parameters, dict) else None
    old = config.get("rope_theta")
    if new is not None and old is None and new != _OLD_ROPE_THETA:
        about = (
            f"config.json states rope_theta {new:,} in rope_parameters alone: older readers take {_OLD_ROPE_THETA:,}"
        )
        yield Finding("fault", about, "state rope_theta at its top level, too")
    elif new is not None and old is not None and new != old:
        about = f"config.json states rope_theta twice: {old:,}, and {new:,} in rope_parameters"
        yield Finding("fault", about, "state the one that the model was trained with")
    elif new is not None or old is not None:
        yield Finding("ok", f"config.json states rope_theta {old or new:,}")


def _generation(folder: Path, config: Any) -> Iterator[Finding]:
    ids = _ends_of_text(folder)
    size = config.get("vocab_size") if isinstance(config, dict) else None
    outside = [each for each in ids if isinstance(size, int) and not 0 <= each < size]
    if not ids:
        about = "generation_config.json states no eos_token_id, which HELMET reads to end an answer"
        yield Finding("fault", about, 'write {"eos_token_id": ID} there')
    elif outside:
        yield Finding("fault", f"eos_token_id {outside[0]} is not in the vocabulary of {size:,}", _OWN_END)
    else:
        yield Finding("ok", f"generation_config.json states eos_token_id {', '.join(map(str, ids))}")


def _ends_of_text(folder: Path) -> list[int]:
    told = _json(folder / "generation_config.json")
    eos = told.get("eos_token_id") if isinstance(told, dict) else None
    ids = [eos] if isinstance(eos, int) else eos
    return ids if isinstance(ids, list) and all(isinstance(each, int) for each in ids) else []


def _weights(folder: Path) -> Iterator[Finding]:
    index = _json(folder / "model.safetensors.index.json")
    mapped = index.get("weight_map") if isinstance(index, dict) else None
    names = set(map(str, mapped.values())) if isinstance(mapped, dict) else {"model.safetensors"}
    missing = sorted(name for name in names if not (folder / name).is_file())
    if not missing:
        yield Finding("ok", f"weights: {len(names)} file{'s' * (len(names) > 1)} of safetensors")
    else:
        yield Finding("fault", f"weights: {missing[0]} is not there", "save them with save_pretrained")


def _tokenizer(folder: Path, config: Any) -> Iterator[Finding]:
    from tokenizers import Tokenizer as FastTokenizer

    if (folder / "tokenizer.model").exists():
        about = "there is a tokenizer.model: RULER counts with NeMo's tokenizer then, not with tokenizer.json"
        yield Finding("warning", about, "take tokenizer.model away before RULER")
    try:
        fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # the library raises bare Exception for whatever it cannot parse
        about = "tokenizer.json is not there or cannot be read: HELMET needs the offsets of a fast tokenizer"
        yield Finding("fault", about, "save the tokenizer with save_pretrained, as fast one")
        return
    size = config.get("vocab_size") if isinstance(config, dict) else None
    if isinstance(size, int) and fast.get_vocab_size() > size:
        about = f"the tokenizer has {fast.get_vocab_size():,} entries, but the model {size:,}"
        yield Finding("fault", about, "give the tokenizer that it was trained with")
    special = {number for number, token in fast.get_added_tokens_decoder().items() if token.special}
    for number in _ends_of_text(folder):
        if number not in special and (token := fast.id_to_token(number)) is not None:
            about = f"eos_token_id {number} is the token {token!r} of ordinary text: answers would end there"
            yield Finding("fault", about, f"{_OWN_END}, in generation_config.json")
    yield _auto_tokenizer(folder, fast)


def _auto_tokenizer(folder: Path, fast: Any) -> Finding:
    """What all three programs open, held against tokenizer.json, with which this project counts and trains."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return Finding("ok", "tokenizer.json can be read (how transformers opens it is not tried: it is not here)")
    try:
        opened = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds, for files that the folder lacks
        reason = " ".join(str(error).split())[:200]
        return Finding("fault", f"AutoTokenizer cannot open the folder ({reason})", "save it with save_pretrained")
    if not opened.is_fast:
        return Finding("fault", "AutoTokenizer opens a slow tokenizer", "name a fast class in tokenizer_config.json")
    if opened.encode(_SAMPLE, add_special_tokens=False) != fast.encode(_SAMPLE, add_special_tokens=False).ids:
        about = "AutoTokenizer makes other tokens than tokenizer.json, with which the model was trained"
        return Finding("fault", about, 'set "tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json')
    if opened.eos_token is None:
        about = "the tokenizer names no eos_token, which all three pad with"
        return Finding("fault", about, "name it in tokenizer_config.json")
    return Finding("ok", "AutoTokenizer opens a fast tokenizer that makes the tokens of tokenizer.json")


def _chat_template(folder: Path) -> Iterator[Finding]:
    told = _json(folder / "tokenizer_config.json")
    if (folder / "chat_template.jinja").is_file() or (isinstance(told, dict) and told.get("chat_template")):
        yield Finding("ok", "there is a chat template")
    else:
        about = "there is no chat template: LongBench v2 asks by chat and cannot score it"
        yield Finding("warning", about, "leave LongBench v2 out; give HELMET --use_chat_template False, RULER base")


def _code(folder: Path, config: Any) -> Iterator[Finding]:
    told = [config, _json(folder / "tokenizer_config.json")]
    maps = any(isinstance(each, dict) and "auto_map" in each for each in told)
    code = sorted(path.name for path in folder.glob("*.py"))
    if maps or code:
        what = f"there is code in the folder ({code[0]})" if code else "auto_map names code that is to be run"
        yield Finding("fault", f"{what}: it is run by who trusts it, and not at all by others", "export a plain model")
    else:
        yield Finding("ok", "there is no code in the folder")


def _names(folder: Path) -> Iterator[Finding]:
    """What the programs make of names; HELMET looks at the whole path, LongBench v2 at the model's name."""
    path, name = str(folder.absolute()), folder.absolute().name
    found = [
        *(
            (part, f"HELMET sends prompts to {whose}, a paid service, for a path with {part!r}")
            for part, whose in _PAID.items()
            if part in path
        ),
        *(
            (part, f"HELMET turns flash attention off for a path with {part!r}")
            for part in ("yarn", "recurrentgemma")
            if part in path.lower()
        ),
        *((part, f"HELMET does not prefill for a path with {part!r}") for part in ("gemma",) if part in path.lower()),
        *(
            (part, f"LongBench v2 takes a name with {part!r} for a hosted model, with another tokenizer")
            for part in ("gpt", "o1")
            if part in name
        ),
    ]
    for _, about in found:
        yield Finding("warning", f"{about} ({path})", "give the folder another name, or a link to it")
    if not found:
        yield Finding("ok", "nothing in the path is a name that these programs treat otherwise")


def _json(path: Path) -> Any:
    """What a file holds; None: it is not there, or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
