"""Keywords: RAKE's scores as worked by hand, nothing raises for any text, queries are what transformers generates."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlong.errors import UserError
from nextlong.keywords import QueryModel, keywords, load_stop_phrases

# Candidates: "water cycle", "warm water", "cycle". Word scores, degree / frequency: water 4/2, cycle 3/2, warm 2/1.
SMALL = "The water cycle is of warm water. The cycle."
SMALL_SCORES = {"water cycle": 3.5, "warm water": 4.0, "cycle": 1.5}
ODD = st.text(alphabet=st.sampled_from("ab N't's’|-_.。\n\t1²İſ+#/[]\x85\u2028\u0307"), max_size=200)


def found(text: str, min_score: float = 3.0, stop_phrases: frozenset[str] = frozenset()) -> list[str]:
    return keywords(text, min_score=min_score, stop_phrases=stop_phrases)


@pytest.mark.parametrize("min_score", [0.0, 1.5, 1.51, 3.5, 3.51, 4.0, 4.01])
def test_scores_are_those_worked_by_hand(min_score: float) -> None:
    assert found(SMALL, min_score) == sorted(phrase for phrase, score in SMALL_SCORES.items() if score >= min_score)


def test_a_score_that_floats_put_below_the_threshold_reaches_it() -> None:
    assert 6 / 5 + 7 / 5 + 7 / 5 < 4  # each word once in the phrase of three, degree + 2, and else alone
    text = "solar panel roof. " + "solar. " * 9 + "panel. " * 4 + "roof. " * 4
    assert found(text, 4.0) == ["solar panel roof"]
    assert found(text, 4.001) == []


def test_stop_phrases_are_no_keywords() -> None:
    assert found(SMALL, stop_phrases=frozenset({"warm water"})) == ["water cycle"]
    assert found(SMALL, stop_phrases=frozenset({"warm"})) == ["warm water", "water cycle"]


@pytest.mark.parametrize(
    "mark", [*"\n\r\u2028。！？；，、：（」【“”—…[]{}<>=`*|.!?,;:()\t\"'’", " - ", " https://a.org/b/c "]
)
def test_a_mark_ends_a_phrase(mark: str) -> None:
    assert found(f"solar panel{mark}wind turbine") == ["solar panel", "wind turbine"]


@pytest.mark.parametrize(
    "text",
    [
        "Solar  Panel",
        "solar\u3000panel",
        "**solar panel**",
        "- solar panel",
        "`solar panel`",
        "# Solar panel =",
        "SOLAR PANEL",
    ],
)
def test_a_keyword_is_written_in_one_way(text: str) -> None:
    assert found(text) == ["solar panel"]


@pytest.mark.parametrize("contraction", ["don't", "doesn’t", "mustn't", "we've", "they’ll", "it's"])
def test_a_contraction_is_a_stop_word(contraction: str) -> None:
    assert found(f"solar panel {contraction} wind turbine") == ["solar panel", "wind turbine"]


@pytest.mark.parametrize(
    "text", ["", " \n\n", "2019 2020", "-- ** __", "12 / 7 = 3", "²²² ³³³", "9" * 5000, "_ _ _ __"]
)
def test_what_has_no_letter_is_no_keyword(text: str) -> None:
    assert found(text, min_score=0.0) == []


@settings(deadline=None)  # the first call imports and compiles
@given(st.one_of(st.text(), ODD), st.sampled_from([0.0, 3.0]))
def test_no_text_raises_and_keywords_have_one_form(text: str, min_score: float) -> None:
    phrases = found(text, min_score)
    assert phrases == sorted(set(phrases))
    for phrase in phrases:
        assert phrase == " ".join(phrase.lower().split())
        assert len(phrase) >= 3
        assert any(map(str.isalpha, phrase))
        assert phrase not in found(text, min_score, frozenset({phrase}))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("the a's able of water cycle Sun so-called self seen x about zero".split()), max_size=40)
)
def test_grouped_stop_words_cut_as_the_librarys_own_do(words: list[str]) -> None:
    import RAKE

    from nextlong.keywords import _rake

    text = " ".join(words)
    assert _rake().run(text, 3, 5) == RAKE.Rake(RAKE.SmartStopList()).run(text, 3, 5)


def test_every_stop_word_of_the_library_ends_a_phrase() -> None:
    import RAKE

    stop_words = RAKE.SmartStopList()
    assert len(stop_words) > 500
    assert [
        word for word in stop_words if found(f"solar panel {word} wind turbine") != ["solar panel", "wind turbine"]
    ] == []


def test_a_long_text_gives_the_keywords_of_its_blocks() -> None:
    sentences = [f"The solar{number} panel{number} is on the roof." for number in range(4000)]
    text = " ".join(sentences)
    assert len(text) > 10 * 8192
    assert found(text) == sorted(f"solar{number} panel{number}" for number in range(4000))
    assert found("x" * 100_000) == []


def test_the_best_block_counts() -> None:
    alone = "warm water. " * 2 + "water. " * 2000  # water 2002 / 2000, warm 2: the phrase stays below 3.1
    assert len(alone) > 8192
    assert found(alone[:8000], min_score=3.5) == []
    assert found(alone[:8192] + "\n" + alone[8192:] + "\n" + "warm water.", min_score=3.5) == []
    assert found(alone + "\n" + "the " * 2000 + "warm water.", min_score=3.5) == ["warm water"]


def test_our_stop_phrases_can_all_occur() -> None:
    phrases = load_stop_phrases(None)
    assert 60 <= len(phrases) <= 100
    assert [phrase for phrase in sorted(phrases) if found(phrase) != [phrase]] == []
    assert found("The main purpose of the water cycle", stop_phrases=phrases) == ["water cycle"]


def test_a_file_of_stop_phrases_is_read_in_the_form_of_keywords(tmp_path: Path) -> None:
    path = tmp_path / "phrases.txt"
    path.write_bytes("\ufeff# ours\n\n  Warm \t Water \r\n # also a comment\nc#\nÉTUDE DE CAS\n".encode())
    assert load_stop_phrases(str(path)) == {"warm water", "c#", "étude de cas"}


def test_stop_phrases_that_cannot_be_read_are_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9tude de cas\n")
    for name in ("missing", "latin", "."):
        with pytest.raises(UserError, match=r"synthesis\.keyword_stop_phrases is .*Give a UTF-8 text file"):
            load_stop_phrases(str(tmp_path / name))


@pytest.fixture(scope="module")
def query_model(query_folder: Path) -> QueryModel:
    return QueryModel.load(str(query_folder))


def _generated(folder: Path, segment: str) -> list[str]:
    """The slow, obvious twin: what transformers itself gives for one segment."""
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(segment, truncation=True, max_length=512, return_tensors="pt")
    outputs = T5ForConditionalGeneration.from_pretrained(folder).generate(
        inputs["input_ids"], num_beams=5, num_return_sequences=5, max_new_tokens=64, do_sample=False
    )
    return [query.strip() for query in tokenizer.batch_decode(outputs, skip_special_tokens=True)]


def test_queries_are_what_transformers_generates(query_folder: Path, query_model: QueryModel) -> None:
    segments = ["what is the water cycle", "rain " * 300 + "river", "sun"]
    for segment in segments:
        expected = list(dict.fromkeys(query for query in _generated(query_folder, segment) if query))
        assert expected
        assert query_model.queries(segment) == expected


def test_a_document_is_read_in_segments_up_to_the_eighth(query_model: QueryModel) -> None:
    segments = [f"{word} " * (2000 // (len(word) + 1)) for word in "water rain cloud river sun heat warm solar".split()]
    text = "\n".join(segments)
    queries = query_model.queries(text)
    each = [query_model.queries(segment) for segment in segments]
    assert queries == list(dict.fromkeys(query for segment in each for query in segment))
    assert len(queries) > len(each[0])
    assert query_model.queries(text + "\n" + "why does " * 220) == queries


def test_queries_are_the_same_each_time(query_folder: Path, query_model: QueryModel) -> None:
    text = "the sun heat does warm the river\n" * 100
    assert query_model.queries(text) == query_model.queries(text)
    assert QueryModel.load(str(query_folder)).queries(text) == query_model.queries(text)


def test_a_blank_text_has_no_queries(query_model: QueryModel) -> None:
    assert query_model.queries("") == query_model.queries(" \n\t\n") == []


def test_queries_give_keywords(query_model: QueryModel) -> None:
    assert isinstance(found("\n".join(query_model.queries("what is the water cycle"))), list)
    assert found("what is the water cycle\nhow does the sun heat a river") == ["sun heat", "water cycle"]


def test_the_fingerprint_is_the_content_and_no_path(query_folder: Path, tmp_path: Path) -> None:
    names = [path.name for path in query_folder.iterdir()]
    assert {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"} <= set(names)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in names:
        (copy / name).write_bytes((query_folder / name).read_bytes())
    (copy / "README.md").write_text("no part of the model")
    original = QueryModel.fingerprint(str(query_folder))
    assert QueryModel.fingerprint(str(copy)) == original
    for name in names:
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content + b" ")
        assert QueryModel.fingerprint(str(copy)) != original
        (copy / name).write_bytes(content)
    (copy / "config.json").rename(copy / "other.json")
    assert QueryModel.fingerprint(str(copy)) != original


def _copy_with(folder: Path, to: Path, **files: bytes | None) -> str:
    """A copy of a model's folder with files replaced or (None) left out; _ stands for the dot of a name's suffix."""
    to.mkdir()
    for path in folder.iterdir():
        content = files.get(path.name.replace(".", "_"), path.read_bytes())
        if content is not None:
            (to / path.name).write_bytes(content)
    return str(to)


def test_a_missing_folder_is_the_users_error(tmp_path: Path) -> None:
    for function in (QueryModel.load, QueryModel.fingerprint):
        with pytest.raises(UserError, match=r"synthesis\.query_model is '.*nowhere', but there is no such folder"):
            function(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "files",
    [
        {"config_json": None},
        {"config_json": b"{"},
        {"config_json": b'{"model_type": "no"}'},
        {"config_json": b'{"model_type": "gpt2"}'},
        {"model_safetensors": None},
        {"model_safetensors": b"\0" * 50},
        {"tokenizer_json": None},
    ],
    ids=str,
)
def test_a_folder_that_holds_no_such_model_is_the_users_error(
    query_folder: Path, tmp_path: Path, files: dict[str, bytes | None]
) -> None:
    folder = _copy_with(query_folder, tmp_path / "broken", **files)
    with pytest.raises(
        UserError, match=r"synthesis\.query_model is '.*broken', which cannot be used: .*save_pretrained"
    ):
        QueryModel.load(folder)


def test_missing_weights_are_the_users_error(query_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save

    weights = load_file(query_folder / "model.safetensors")
    del weights["decoder.final_layer_norm.weight"]
    folder = _copy_with(query_folder, tmp_path / "model", model_safetensors=save(weights, metadata={"format": "pt"}))
    with pytest.raises(UserError, match=r"1 weights are missing, e\.g\. decoder\.final_layer_norm\.weight"):
        QueryModel.load(folder)


def test_a_tokenizer_of_another_model_is_the_users_error(query_folder: Path, tmp_path: Path) -> None:
    import json

    tokenizer: dict[str, Any] = json.loads((query_folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"word{number}": number for number in range(17, 40)}
    folder = _copy_with(query_folder, tmp_path / "model", tokenizer_json=json.dumps(tokenizer).encode())
    with pytest.raises(UserError, match=r"its tokenizer has 40 tokens, but its model only 17"):
        QueryModel.load(folder)


def test_transformers_not_installed_is_the_users_error(query_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"synthesis\.query_model .*not installed.*pip install 'nextlong\[train\]'"):
        QueryModel.load(str(query_folder))
