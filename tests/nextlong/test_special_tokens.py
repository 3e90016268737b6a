"""Special tokens: the one given, or the one that the files beside the tokenizer name; none is guessed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nextlong.errors import UserError
from nextlong.special_tokens import named_token, pad_id, special_id
from nextlong.tokenizing import Tokenizer

END = "<|endoftext|>"
CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"

Beside = Callable[..., Tokenizer]


@pytest.fixture
def beside(tmp_path: Path, tokenizer_file: Path) -> Beside:
    """beside({file: content}): the tokenizer in a folder with these files."""

    def make(files: dict[str, Any]) -> Tokenizer:
        shutil.copy(tokenizer_file, tmp_path / "tokenizer.json")
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return Tokenizer(tmp_path / "tokenizer.json")

    return make


def test_a_token_given_is_looked_up_whatever_the_files_name(beside: Beside) -> None:
    tokenizer = beside({CONFIG: {"eos_token": "a"}})
    end = tokenizer.token_id(END)
    assert end is not None
    for kind in ("bos", "eos", "pad"):
        assert special_id(tokenizer, kind, END) == end
    assert pad_id(tokenizer, END) == end
    assert special_id(tokenizer, "eos", "a") == tokenizer.token_id("a") != end


@pytest.mark.parametrize("given", [None, False])
def test_none_is_none(beside: Beside, given: bool | None) -> None:
    assert special_id(beside({CONFIG: {"eos_token": END}}), "eos", given) is None


@pytest.mark.parametrize(
    "files",
    [
        {CONFIG: {"eos_token": END}},
        {CONFIG: {"eos_token": {"content": END, "lstrip": False, "__type": "AddedToken"}}},
        {MAP: {"eos_token": END}},
        {MAP: {"eos_token": {"content": END}}},
        {CONFIG: {"eos_token": None}, MAP: {"eos_token": END}},
        {CONFIG: {"bos_token": "a"}, MAP: {"eos_token": END}},
        {CONFIG: {"eos_token": END}, MAP: {"eos_token": "a"}},  # the first file that names one
        {CONFIG: "{", MAP: {"eos_token": END}},
        {CONFIG: "[1]", MAP: {"eos_token": END}},
        {CONFIG: {"eos_token": 7}, MAP: {"eos_token": END}},
        {CONFIG: {"eos_token": {"lstrip": True}}, MAP: {"eos_token": END}},
    ],
)
def test_true_means_the_token_that_the_files_name(beside: Beside, files: dict[str, Any]) -> None:
    tokenizer = beside(files)
    assert special_id(tokenizer, "eos", True) == tokenizer.token_id(END)


def test_a_name_outside_ascii_is_read_in_any_locale(beside: Beside) -> None:
    folder = beside({CONFIG: {"eos_token": "<｜end▁of▁sentence｜>"}}).file.parent
    program = (
        "import sys; from pathlib import Path; from nextlong.special_tokens import named_token; "
        "print(ascii(named_token(Path(sys.argv[1]), 'eos')))"
    )
    environment = os.environ | {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = subprocess.run(
        [sys.executable, "-c", program, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == ascii("<｜end▁of▁sentence｜>")


@pytest.mark.parametrize("files", [{}, {CONFIG: {"bos_token": END}}, {CONFIG: "nonsense"}])
def test_where_no_file_names_one_it_is_asked_for(beside: Beside, files: dict[str, Any]) -> None:
    tokenizer = beside(files)
    assert named_token(tokenizer.file.parent, "eos") is None
    with pytest.raises(UserError, match=r"no file beside .*tokenizer.json names its eos token. .*: --eos TOKEN"):
        special_id(tokenizer, "eos", True)


def test_a_token_outside_the_vocabulary_is_refused(beside: Beside) -> None:
    tokenizer = beside({CONFIG: {"bos_token": "<s>"}})
    for given in (True, "<s>"):
        with pytest.raises(UserError, match=r"'<s>' is no token of .*tokenizer.json: give another as --bos"):
            special_id(tokenizer, "bos", given)
    with pytest.raises(UserError, match=r"'' is no token of .* --pad"):
        pad_id(tokenizer, "")


def test_padding_is_the_pad_token_else_eos_else_zero(beside: Beside) -> None:
    tokenizer = beside({CONFIG: {"pad_token": "a", "eos_token": END}})
    end = tokenizer.token_id(END)
    assert end is not None
    assert pad_id(tokenizer, None) == tokenizer.token_id("a")
    assert pad_id(beside({CONFIG: {"pad_token": "[PAD]", "eos_token": END}}), None) == end
    assert pad_id(beside({CONFIG: {"eos_token": END}}), None) == end
    assert pad_id(beside({CONFIG: {"eos_token": "</s>"}}), None) == 0
    assert pad_id(beside({CONFIG: {}}), None) == 0
