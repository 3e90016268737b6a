"""Token ids: made once a chunk, concatenated ever after."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from nextlong.errors import UserError
from nextlong.tokenizing import Tokenizer, chunk_documents_by_tokens
from tests.conftest import make_texts

CHUNKS = st.lists(st.text(max_size=40), min_size=1, max_size=12)


@pytest.fixture(scope="session")
def byte_level(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer(tokenizer_file)


def _train(model: object, trainer: object, path: Path, **parts: object) -> Tokenizer:
    fast = FastTokenizer(model)
    for name, part in parts.items():
        setattr(fast, name, part)
    fast.train_from_iterator([text for _, text in make_texts(40, seed=1)], trainer)
    fast.save(str(path))
    return Tokenizer(path)


@pytest.fixture(scope="session")
def word_piece(model_folder: Path) -> Tokenizer:
    return Tokenizer.load(str(model_folder))


@pytest.fixture(scope="session")
def unigram(shared: Path) -> Tokenizer:
    return _train(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False),
        shared / "unigram.json",
        normalizer=normalizers.NFKC(),
        pre_tokenizer=pre_tokenizers.Metaspace(),
        decoder=decoders.Metaspace(),
    )


def test_the_class_of_a_tokenizer_is_told(byte_level: Tokenizer, word_piece: Tokenizer, unigram: Tokenizer) -> None:
    assert [each.concatenation for each in (byte_level, word_piece, unigram)] == ["exact", "round trip", "round trip"]
    assert "to the byte" in byte_level.describe()
    assert "round trip" in unigram.describe()


@settings(max_examples=60)
@given(CHUNKS, st.randoms())
def test_byte_level_ids_of_chunks_in_any_order_decode_to_their_texts(
    byte_level: Tokenizer, chunks: list[str], rng: random.Random
) -> None:
    tokens = byte_level.encode(chunks)
    order = list(range(len(chunks)))
    rng.shuffle(order)
    ids = [token for place in order for token in tokens.ids[tokens.offsets[place] : tokens.offsets[place + 1]]]
    assert byte_level.decode(ids) == "".join(chunks[place] for place in order)


@settings(max_examples=40)
@given(st.lists(st.text(alphabet="abc é.ﬁ\n", max_size=30), min_size=1, max_size=6))
def test_other_tokenizers_decode_each_part_to_their_own_round_trip(
    word_piece: Tokenizer, unigram: Tokenizer, chunks: list[str]
) -> None:
    for tokenizer in (word_piece, unigram):
        tokens = tokenizer.encode(chunks)
        for place, chunk in enumerate(chunks):
            part = tokens.ids[tokens.offsets[place] : tokens.offsets[place + 1]]
            assert tokenizer.decode(part) == tokenizer.decode(tokenizer.encode([chunk]).ids)


def test_special_tokens_in_a_text_are_text(byte_level: Tokenizer) -> None:
    ids = byte_level.encode(["end<|endoftext|>start"]).ids
    assert 0 not in ids.tolist()
    assert byte_level.decode(ids) == "end<|endoftext|>start"


def test_no_texts_and_empty_texts_have_no_ids(byte_level: Tokenizer) -> None:
    assert byte_level.encode([]).offsets.tolist() == [0]
    assert byte_level.encode(["", ""]).offsets.tolist() == [0, 0, 0]
    assert byte_level.encode(["a"]).ids.dtype == np.uint32


@pytest.mark.parametrize("granularity", [8, 20, 64])
def test_no_chunk_exceeds_a_granularity_in_tokens(
    byte_level: Tokenizer, word_piece: Tokenizer, unigram: Tokenizer, granularity: int
) -> None:
    texts = [text for _, text in make_texts(15, seed=3)] + ["你好。" * 40, "🎈" * 30, "x" * 300, "\n" * 50 + "a"]
    for tokenizer in (byte_level, word_piece, unigram):
        longest = 0
        for text, chunks in zip(texts, chunk_documents_by_tokens(texts, tokenizer, granularity), strict=True):
            pieces = [chunk + joiner for chunk, joiner in zip(*chunks, strict=True)]
            assert "".join(pieces) == text
            longest = max(longest, *np.diff(tokenizer.encode(pieces).offsets).tolist())
        assert 0 < longest <= granularity


def test_the_ids_do_not_depend_on_the_batches(byte_level: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for _, text in make_texts(20)]
    whole = byte_level.encode(texts)
    monkeypatch.setattr("nextlong.tokenizing._BATCH_CHARS", 500)
    small = byte_level.encode(texts)
    assert whole.ids.tolist() == small.ids.tolist()
    assert whole.offsets.tolist() == small.offsets.tolist()


def test_a_folder_without_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(UserError, match=r"no tokenizer\.json, so it holds no fast tokenizer"):
        Tokenizer.load(str(tmp_path))


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        Tokenizer.load(str(tmp_path / "none"))


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"a": 1}')
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.load(str(path))


def test_dropout_is_refused(tokenizer_file: Path, tmp_path: Path) -> None:
    specification = json.loads(tokenizer_file.read_text())
    specification["model"]["dropout"] = 0.1
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(specification))
    with pytest.raises(UserError, match="BPE dropout"):
        Tokenizer.load(str(path))
