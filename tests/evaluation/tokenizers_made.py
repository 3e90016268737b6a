"""Tokenizers of the common kinds, made here in parts of a second."""

from collections.abc import Callable
from functools import cache
from string import ascii_lowercase, digits, printable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.conftest import make_texts


def every_byte() -> Tokenizer:
    """A token a byte: made by hand, so that it is the same whatever trains tokenizers."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_level() -> Tokenizer:
    """Byte-level BPE that puts a token at the beginning."""
    tokenizer = every_byte()
    tokenizer.train_from_iterator(_texts(), trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>"],
        show_progress=False,
    ))  # fmt: skip
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def word_piece() -> Tokenizer:
    """Lower case, no line ends, a token at the beginning and one at the end."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        [*_texts(), *(f"{one}{one}" for one in ascii_lowercase + digits)],  # each letter first and within a word
        trainers.WordPieceTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=list(printable), show_progress=False
        ),
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def unigram(letters: str = printable) -> Tokenizer:
    """Unigram with a mark before words; letters: that it has tokens of, whatever the texts."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500, unk_token="<unk>", special_tokens=["<unk>"], initial_alphabet=list(letters),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    each.__name__: each for each in (every_byte, byte_level, word_piece, unigram)
}


@cache
def made(kind: str) -> Tokenizer:
    """The tokenizer of a kind, made once."""
    return KINDS[kind]()


def _texts() -> list[str]:
    return [text for _, text in make_texts(60, seed=1)]
