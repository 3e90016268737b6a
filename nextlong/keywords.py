"""A text in, its keywords out (Quest, arXiv:2405.19846): phrases by RAKE, from the text or from a model's queries."""

import hashlib
import json
import re
import string
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from nextlong.chunking import chunk_text
from nextlong.errors import UserError
from nextlong.folders import inside

_BLOCK_CHARS = 8192  # RAKE's cost grows with the square of the phrases it is given at once
_MIN_CHARS, _MAX_WORDS = 3, 5
# RAKE ends a phrase at . ! ? , ; : ( ) ' " tab, at ’ – and " - ". These end one too: contractions (it splits at the
# apostrophe before it looks for stop words, so "don't" would leave the word "don"), web addresses, line breaks, the
# CJK marks, the other brackets and quotes, and the marks of code and markup.
_PHRASE_END = re.compile(
    r"\b\w*n['’]t\b|['’](?:ve|ll|re|s|d|m|mon)\b|https?://\S+|\bwww\.\S+"
    r"|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|[。！？；，、：（）「」『』《》【】]|[\[\]{}<>=`*“”„‘«»—…]"
)
_EDGES = string.punctuation + string.whitespace + "•·−"
_FILE = Path(__file__).with_name("keyword_stop_phrases.txt")

_SEGMENT_CHARS = 2048
_MAX_SEGMENTS = 8  # the first 16,384 characters of a document: bounds the cost of one that is a book
_SEGMENT_TOKENS = 512  # what T5 was trained on
_NUM_QUERIES = 5
_QUERY_TOKENS = 64
_MODEL_FILES = (".json", ".model", ".txt", ".safetensors")
_ATTENTION = (None, "eager", "sdpa")  # other names are of code on the hub, or of other packages


def keywords(text: str, *, min_score: float, stop_phrases: frozenset[str]) -> list[str]:
    """The distinct keywords of a text, sorted: its phrases with a RAKE score of at least `min_score`.

    A phrase is a run of at most five words without a stop word (SMART's list) or punctuation; a word scores its degree
    / its frequency, a phrase the sum over its words. "the water cycle. The cycle." -> water 2/1, cycle 3/2, and the
    phrase "water cycle" 3.5. Keywords are lower case, single-spaced, bare of punctuation at their ends, hold a letter
    and at least three characters, and none is in `stop_phrases` (`load_stop_phrases`).

    A long text is scored in blocks of 8,192 characters, and a phrase's best block counts: linear cost, and scores of a
    long text are comparable with those of a short one. RAKE counts words that spaces or punctuation separate, so
    Chinese and Japanese text gives few keywords of its own.
    """
    found = {
        _normalise(phrase)
        for block in chunk_text(text, granularity_chars=_BLOCK_CHARS)
        for phrase, score in _rake().run(_PHRASE_END.sub(". ", block), minCharacters=_MIN_CHARS, maxWords=_MAX_WORDS)
        if round(score, 6) >= min_score  # 6/5 + 7/5 + 7/5 is 4, but 3.9999999999999996 in floats
    }
    return sorted(phrase for phrase in found - stop_phrases if _names_something(phrase))


@cache
def _rake() -> Any:
    """RAKE with SMART's stop words; it puts each into a regular expression as it stands, and tries one by one.

    So it is given one "word" that groups them by first letter: the same phrases in half the time.
    """
    import RAKE

    groups = groupby(sorted(RAKE.SmartStopList()), key=lambda word: word[0])
    by_letter = [f"{letter}(?:{'|'.join(word[1:] for word in words)})" for letter, words in groups]
    return RAKE.Rake([f"(?:{'|'.join(by_letter)})"])


def _normalise(phrase: str) -> str:
    """As a keyword is written: "- **water  cycle**" -> "water cycle"."""
    return " ".join(phrase.strip(_EDGES).split())


def _names_something(phrase: str) -> bool:
    return len(phrase) >= _MIN_CHARS and any(map(str.isalpha, phrase))


def load_stop_phrases(path: str | None) -> frozenset[str]:
    """The phrases of a UTF-8 file, one a line, in the form of keywords; # begins a comment line. None: our own file.

    Raises UserError when the file cannot be read.
    """
    try:
        lines = (Path(path).expanduser() if path else _FILE).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"synthesis.keyword_stop_phrases is {path!r}, but that file cannot be read: {error}. "
            f"Give a UTF-8 text file with one phrase a line, or null for ours."
        ) from error
    phrases = (" ".join(line.lower().split()) for line in lines if not line.lstrip().startswith("#"))
    return frozenset(filter(None, phrases))


class QueryModel:
    """A doc2query model: a text in, questions it answers out. It computes on the CPU, in float32, on one thread.

    It cannot be pickled: load it in the process that uses it, and call it from one thread at a time.
    """

    def __init__(self, tokenizer: Any, model: Any) -> None:
        self._tokenizer, self._model = tokenizer, model

    @classmethod
    def load(cls, folder: str) -> "QueryModel":
        """Open a local folder of a transformers sequence-to-sequence model; nothing is fetched, no code in it is run.

        Weights are read from safetensors alone: the older .bin is a pickle, which may run code.
        Sets the threads of torch in this process to one: parallelism comes from processes.
        Raises UserError when the folder is missing, incomplete or no such model, or transformers is not installed.
        """
        path = _model_folder(folder)
        _refuse_code(folder, path)
        try:
            import torch
            from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
        except ImportError as error:
            raise UserError(
                f"synthesis.query_model is {folder!r}, but torch and transformers, which run it, are not installed "
                f"({error}). Run pip install 'nextlong[train]', or set it to null."
            ) from error
        torch.set_num_threads(1)
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, **local)
            model, report = AutoModelForSeq2SeqLM.from_pretrained(
                path, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **local
            )
        except Exception as error:  # these raise whatever their many formats do; all end in the same advice
            raise _unusable(folder, str(error).split("\n")[0]) from error
        if missing := sorted(report["missing_keys"]):  # transformers would go on with random numbers
            raise _unusable(folder, f"{len(missing)} weights are missing, e.g. {missing[0]}")
        if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):
            raise _unusable(folder, f"its tokenizer has {len(tokenizer)} tokens, but its model only {rows}")
        return cls(tokenizer, model.eval())

    @staticmethod
    def fingerprint(folder: str) -> str:
        """What a model is: sha256 over the names and contents of its files; no paths in it, and torch is not needed.

        Raises UserError when there is no such folder.
        """
        digest = hashlib.sha256()
        for path in sorted(_model_folder(folder).iterdir(), key=lambda path: path.name):
            if path.suffix in _MODEL_FILES and path.is_file():
                with open(path, "rb") as file:
                    digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()

    def queries(self, text: str) -> list[str]:
        """Distinct queries that a text answers, best first within a segment: at most five for each of its segments.

        Segments are chunks of 2,048 characters, of which the first eight are read, 512 tokens each. Beam search without
        sampling and one segment a call: a segment's queries depend on nothing but its text and the model.
        """
        segments = chunk_text(text, granularity_chars=_SEGMENT_CHARS)[:_MAX_SEGMENTS]
        queries = [query.strip() for segment in segments if segment.strip() for query in self._generate(segment)]
        return list(dict.fromkeys(filter(None, queries)))

    def _generate(self, segment: str) -> list[str]:
        max_tokens = min(_SEGMENT_TOKENS, self._tokenizer.model_max_length)
        encoded = self._tokenizer(segment, truncation=True, max_length=max_tokens, return_tensors="pt")
        beams = self._model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            do_sample=False,
            num_beams=_NUM_QUERIES,
            num_return_sequences=_NUM_QUERIES,
            max_new_tokens=_QUERY_TOKENS,
        )
        return [self._tokenizer.decode(beam, skip_special_tokens=True) for beam in beams]


def _model_folder(folder: str) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(
            f"synthesis.query_model is {folder!r}, but there is no such folder. Give the folder of a doc2query model, "
            f"or null to take keywords from the documents' own text."
        )
    return path


def _refuse_code(folder: str, path: Path) -> None:
    """Raise UserError for what would make transformers run code of the hub, or read files outside the folder."""
    if not list(path.glob("*.safetensors")):
        raise _unusable(folder, "it has no .safetensors file, and weights of other formats are not read")
    if (path / "adapter_config.json").exists():
        raise _unusable(folder, "it has an adapter_config.json, which names another model. Merge the adapter into it")
    for name in _values_of(_read_json(folder, path / "config.json"), "attn_implementation"):
        if name not in _ATTENTION:
            raise _unusable(folder, f"its config.json asks for the attention {name!r}, which may be code of the hub")
    weights = _read_json(folder, path / "model.safetensors.index.json").get("weight_map")
    for name in weights.values() if isinstance(weights, dict) else ():
        inside(path, name)


def _values_of(config: Any, ending: str) -> Iterator[Any]:
    """The values of all keys that end so (or with _internal besides), at any depth."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key.removesuffix("_internal").endswith(ending):
                yield from value.values() if isinstance(value, dict) else [value]
            yield from _values_of(value, ending)


def _read_json(folder: str, path: Path) -> dict[str, Any]:
    """What a JSON file holds; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise _unusable(folder, f"its {path.name} is not JSON ({error})") from error
    return found if isinstance(found, dict) else {}


def _unusable(folder: str, reason: str) -> UserError:
    return UserError(
        f"synthesis.query_model is {folder!r}, which cannot be used: {reason}. Give a folder in which "
        f"transformers' save_pretrained has put a sequence-to-sequence model and its tokenizer."
    )
