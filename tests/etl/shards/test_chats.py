"""Chats packed into sequences: targets on the assistant's turns alone, whole chats, and refusals that say where."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etl.engine import Engine
from etl.shards.of_folder import PackedFolder
from etl.shards.verify import verify
from nextlong.chats import ChatTemplate
from tests.chat_templates import TEMPLATES, write_chat_tokenizer
from tests.etl.test_cli import nextlong

LENGTH = 200


def _chats(number: int) -> list[list[dict[str, str]]]:
    rng = np.random.default_rng(0)
    words = "cell membrane market price force velocity index frame the of and".split()

    def text() -> str:
        return " ".join(rng.choice(words, rng.integers(2, 9)))

    return [
        [{"role": role, "content": text()} for _ in range(rng.integers(1, 4)) for role in ("user", "assistant")]
        for _ in range(number)
    ]


def _write(path: Path, chats: list[Any]) -> Path:
    path.write_text("".join(json.dumps({"messages": chat, "id": f"chat-{n}"}) + "\n" for n, chat in enumerate(chats)))
    return path


def _pack(path: Path, tokenizer: str, out: Path, *options: object, status: int = 0) -> Any:
    how = ["--chat", "--tokenizer", tokenizer, "--length", LENGTH, "--id", "id", "--workers", 0, "--out", out]
    return nextlong("pack", path, *how, *options, status=status)


@pytest.mark.parametrize("template", ["chatml", "marked", "llama", "mistral"])
def test_chats_are_whole_and_only_the_assistant_is_a_target(template: str, tmp_path: Path) -> None:
    tokenizer = write_chat_tokenizer(tmp_path / "tokenizer", TEMPLATES[template])
    chats = _chats(40)
    _pack(_write(tmp_path / "chats.jsonl", chats), tokenizer, tmp_path / "out", "--format", "mds")
    folder = PackedFolder.open(tmp_path / "out")
    expected = [ChatTemplate.load(tokenizer).encode(chat, "") for chat in chats]
    assert all(len(ids) < LENGTH for ids, _ in expected)
    seen, num_targets = [], 0
    for row, told in enumerate(folder.provenance(0, len(folder)).to_pylist()):
        sequence = folder.read(row, row + 1)
        assert sequence.mask is not None
        for each in told["segments"]:
            span = slice(each["start"], each["end"])
            if each["role"] == "document":
                ids, mask = expected[each["doc_id"]]
                assert sequence.input_ids[0, span].tolist() == ids.tolist()
                assert sequence.mask[0, span].tolist() == mask.tolist()
                seen.append(each["doc_id"])
                num_targets += int(mask.sum())
            else:
                assert not sequence.mask[0, span].any()
    assert sorted(seen) == list(range(len(chats)))
    assert 0 < num_targets < sum(len(ids) for ids, _ in expected)
    assert verify(folder.path, Engine()).faults == []


def test_the_template_is_part_of_what_an_export_is(tmp_path: Path) -> None:
    path = _write(tmp_path / "chats.jsonl", _chats(5))
    for name in ("chatml", "llama"):
        tokenizer = write_chat_tokenizer(tmp_path / "tokenizer", TEMPLATES[name])
        _pack(path, tokenizer, tmp_path / name)
    refused = _pack(path, tokenizer, tmp_path / "chatml", status=2)
    assert "holds another export" in refused.stderr


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([{"content": "a"}, {"role": "assistant", "content": "b"}], "chats.jsonl, row 3 .*has no role"),
        ([{"role": "user", "content": "a"}], "chats.jsonl, row 3 .*no message of the role assistant"),
        ([], "chats.jsonl, row 3 .*no messages"),
        ("text", "chats.jsonl, line 4: field 'messages' "),
    ],
)
def test_a_chat_that_is_none_is_refused_with_file_and_row(chat: Any, message: str, tmp_path: Path) -> None:
    tokenizer = write_chat_tokenizer(tmp_path / "tokenizer", TEMPLATES["chatml"])
    chats: list[Any] = _chats(5)
    chats[3] = chat
    ran = _pack(_write(tmp_path / "chats.jsonl", chats), tokenizer, tmp_path / "out", status=2)
    assert re.search(message, ran.stderr), ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_template_and_a_text_file_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "chats.jsonl", _chats(5))
    plain = write_chat_tokenizer(tmp_path / "plain", None)
    assert "has no chat template" in _pack(path, plain, tmp_path / "out", status=2).stderr
    tokenizer = write_chat_tokenizer(tmp_path / "tokenizer", TEMPLATES["chatml"])
    cut = _pack(path, tokenizer, tmp_path / "out", "--fitting", "concat", status=2)
    assert "--fitting concat would cut chats" in cut.stderr
    assert "--bos and --eos do not go with --chat" in _pack(path, tokenizer, tmp_path / "out", "--eos", status=2).stderr
