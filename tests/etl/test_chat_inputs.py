"""Chats are read as documents are, with their messages as JSON text, from every format that has columns."""

import gzip
import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.inputs import ChatInput, Input, estimate_text_bytes, list_files, plan_splits, read_split, read_tables
from etl.read import DROPPED, scan_partition
from nextlong.chats import ChatTemplate
from nextlong.errors import UserError
from tests.chat_templates import TEMPLATES, write_chat_tokenizer
from tests.etl.test_inputs import write, write_parquet

Chat = list[dict[str, Any]]


def make_chat(number: int) -> Chat:
    return [
        {"role": "user", "content": f"Question {number}: \u4e09 \N{GRINNING FACE}\n" * (number % 3 + 1)},
        {"role": "assistant", "content": f'Answer "{number}"\\'},
    ] * (number % 2 + 1)


CHATS = [make_chat(number) for number in range(60)]
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def read_table(**options: Any) -> tuple[pa.Table, int]:
    """All splits concatenated, and the number of chats with replaced characters."""
    inputs = ChatInput(**options)
    parts = [read_split(split, inputs) for split in plan_splits(inputs, list_files(inputs))]
    return pa.concat_tables([part.table for part in parts]), sum(part.num_replaced for part in parts)


def texts_of(**options: Any) -> list[str | None]:
    texts: list[str | None] = read_table(**options)[0]["text"].to_pylist()
    return texts


def chats_of(**options: Any) -> list[Any]:
    return [text if text is None else json.loads(text) for text in texts_of(**options)]


def to_jsonl(chats: list[Any]) -> bytes:
    return b"".join(json.dumps({"messages": chat, "id": number}).encode() + b"\n" for number, chat in enumerate(chats))


def write_files(folder: Path) -> dict[str, str]:
    """The chats in every format, by its name."""
    text = [json.dumps(chat) for chat in CHATS]
    numbers = list(range(len(CHATS)))
    lists = {"messages": pa.array(CHATS, MESSAGES), "id": numbers}
    return {
        "lists": write_parquet(folder / "lists.parquet", lists, row_group_size=7),
        "strings": write_parquet(folder / "strings.parquet", {"messages": text, "id": numbers}, row_group_size=7),
        "jsonl": write(folder / "chats.jsonl", to_jsonl(CHATS)),
        "packed": write(folder / "chats.jsonl.gz", gzip.compress(to_jsonl(CHATS))),
        "json strings": write(folder / "strings.jsonl", to_jsonl(text)),
    }


@pytest.mark.parametrize("name", ["lists", "strings", "jsonl", "packed", "json strings"])
@pytest.mark.parametrize("size", [300, 3_000, 10**9])
def test_chats_of_every_format_are_read_to_the_last_however_they_are_cut(tmp_path: Path, name: str, size: int) -> None:
    path = write_files(tmp_path)[name]
    for unit in ("part_bytes", "part_rows"):
        table, num_replaced = read_table(path=path, id="id", **{unit: size})
        assert table["text"].to_pylist() == [json.dumps(chat, ensure_ascii=False) for chat in CHATS]
        assert table["source_id"].to_pylist() == [str(number) for number in range(len(CHATS))]
        assert set(table["source"].to_pylist()) == {Path(path).name}
        assert num_replaced == 0
        assert table.schema == Input(path=path).columns.schema


def test_the_same_chats_have_the_same_text_in_every_format(tmp_path: Path) -> None:
    texts = [texts_of(path=path) for path in write_files(tmp_path).values()]
    assert len(texts) == 5
    assert all(each == texts[0] for each in texts)


def test_any_file_system_is_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/chats/a.jsonl", to_jsonl(CHATS))
    with memory.open("/chats/b.parquet", "wb") as file:
        pq.write_table(pa.table({"messages": pa.array(CHATS, MESSAGES)}), file)
    assert chats_of(path=["memory://chats/a.jsonl", "memory://chats/b.parquet"]) == CHATS * 2


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, pa.list_view, lambda kind: pa.list_(kind, 2)])
def test_every_type_of_list_is_read(tmp_path: Path, make: Any) -> None:
    strings = pa.dictionary(pa.int8(), pa.string())
    kind = make(pa.struct([("role", strings), ("content", pa.large_string())]))
    chats = [chat[:2] for chat in CHATS]
    path = write_parquet(tmp_path / "a.parquet", {"turns": pa.array([*chats, None], kind)})
    assert chats_of(path=path, text="turns") == [*chats, None]


def test_values_become_what_json_knows_and_absent_fields_stay_absent(tmp_path: Path) -> None:
    kind = pa.list_(
        pa.struct(
            [
                ("role", pa.string()),
                ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string()), ("n", pa.int64())]))),
                ("arguments", pa.map_(pa.string(), pa.float64())),
                ("raw", pa.binary()),
                ("day", pa.date32()),
                ("cost", pa.decimal128(5, 2)),
                ("is_good", pa.bool_()),
            ]
        )
    )
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"n": 3}], "raw": b"caf\xe9"},
        {"role": "assistant", "content": [], "arguments": {"x": 0.5}},
        {"role": "user", "day": date(2026, 1, 2), "cost": Decimal("1.50"), "is_good": True, "arguments": {}},
    ]
    path = write_parquet(tmp_path / "a.parquet", {"messages": pa.array([chat], kind)})
    expected = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"n": 3}], "raw": "caf\ufffd"},
        {"role": "assistant", "content": [], "arguments": {"x": 0.5}},
        {"role": "user", "day": "2026-01-02", "cost": "1.50", "is_good": True, "arguments": {}},
    ]
    assert [{**message} for message in chats_of(path=path)[0]] == expected


def test_what_jsonl_says_of_a_field_is_kept(tmp_path: Path) -> None:
    chat = [{"role": "assistant", "content": None, "tool_calls": [{"arguments": {"x": None, "y": 1.5, "z": 10**20}}]}]
    assert chats_of(path=write(tmp_path / "a.jsonl", to_jsonl([chat]))) == [chat]


@settings(max_examples=60, deadline=None)
@given(
    chats=st.lists(st.lists(st.fixed_dictionaries({"role": st.text(), "content": st.text()})), min_size=1, max_size=6),
    size=st.integers(1, 200),
)
def test_messages_come_back_to_the_letter(chats: list[Chat], size: int) -> None:
    fsspec.filesystem("memory").pipe("/letters/a.jsonl", to_jsonl(chats))
    with fsspec.filesystem("memory").open("/letters/b.parquet", "wb") as file:
        pq.write_table(pa.table({"messages": pa.array(chats, MESSAGES)}), file, row_group_size=2)
    for name in ("a.jsonl", "b.parquet"):
        assert chats_of(path=f"memory://letters/{name}", part_bytes=size) == chats


def test_bytes_that_are_no_utf8_and_lone_surrogates_are_replaced_and_counted(tmp_path: Path) -> None:
    contents = [b"fine", b"caf\xe9", b"fine too"]
    claimed = pa.Array.from_buffers(pa.string(), 3, pa.array(contents, pa.binary()).buffers())
    messages = pa.StructArray.from_arrays([pa.array(["user"] * 3), claimed], ["role", "content"])
    path = write_parquet(tmp_path / "a.parquet", {"messages": pa.ListArray.from_arrays([0, 1, 2, 3], messages)})
    table, num_replaced = read_table(path=path)
    contents_read = [json.loads(text)[0]["content"] for text in table["text"].to_pylist()]
    assert contents_read == ["fine", "caf\ufffd", "fine too"]
    assert num_replaced == 1
    half = '[{"role": "user", "content": "\\ud800 alone"}]'
    for path in (
        write(tmp_path / "b.jsonl", f'{{"messages": {half}}}\n'),
        write(tmp_path / "c.jsonl", json.dumps({"messages": half}) + "\n"),
        write_parquet(tmp_path / "d.parquet", {"messages": [half]}),
    ):
        table, num_replaced = read_table(path=path)
        assert json.loads(table["text"][0].as_py()) == [{"role": "user", "content": "\ufffd alone"}]
        assert num_replaced == 1


def test_null_blank_and_long_chats_are_dropped_for_the_reasons_that_documents_are(tmp_path: Path) -> None:
    long = [{"role": "user", "content": "x" * 200}]
    paths = [
        write_parquet(tmp_path / "a.parquet", {"messages": pa.array([CHATS[0], None, long], MESSAGES)}),
        write_parquet(tmp_path / "b.parquet", {"messages": [json.dumps(CHATS[0]), "null", "", " ", json.dumps(long)]}),
        write(tmp_path / "c.jsonl", to_jsonl([CHATS[0], None, "null", "", " ", long, CHATS[0]])),
    ]
    inputs = ChatInput(path=paths, max_document_chars=200)
    [split] = plan_splits(inputs, list_files(inputs))
    statuses = [DROPPED.get(int(status), "kept") for status in scan_partition(split, inputs)["status"]]
    assert statuses == [
        *("kept", "null_text", "too_long"),
        *("kept", "null_text", "empty_text", "blank_text", "too_long"),
        *("kept", "null_text", "null_text", "empty_text", "blank_text", "too_long", "kept"),
    ]
    [whole] = [len(text) for text in texts_of(path=paths[0])[2:] if text]
    assert ChatInput(path=paths[0], max_document_chars=whole).bounds.document_chars == whole
    assert texts_of(path=paths[0], max_document_chars=whole)[2] is not None
    assert texts_of(path=paths[0], max_document_chars=whole - 1)[2] is None


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("7", "is a number, but must be a list of objects, or a string that holds one as JSON, or null"),
        ("true", "is a boolean"),
        ('{"role": "user"}', "is an object"),
        ('"hello"', r"is a string, but not of JSON \(Expecting value at column 1\)"),
        ('"{}"', "is JSON, but no list"),
        ('"' + "[" * 20_000 + '"', "is nested too deeply"),
        ('"[' + "1" * 5_000 + ']"', r"is JSON that cannot be read \(Exceeds the limit"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_line(tmp_path: Path, value: str, message: str, ending: str) -> None:
    data = to_jsonl(CHATS) + f'{{"messages": {value}}}\n'.encode()
    path = write(tmp_path / f"a.jsonl{ending}", gzip.compress(data) if ending else data)
    with pytest.raises(UserError, match=rf"^a\.jsonl{ending}, line 61: field 'messages' \(input\.text\) {message}"):
        read_table(path=path, part_bytes=1_000)


def test_a_string_in_parquet_that_is_no_json_is_named_with_its_row(tmp_path: Path) -> None:
    texts = [json.dumps(chat) for chat in CHATS]
    for value, message in (("{oops", "a string, but not of JSON"), ("7", "JSON, but no list")):
        path = write_parquet(tmp_path / "a.parquet", {"messages": [*texts, value, *texts]}, row_group_size=7)
        with pytest.raises(
            UserError, match=rf"^a\.parquet, row 60 \(from 0\): column 'messages' \(input\.text\) is {message}"
        ):
            read_table(path=path, part_rows=1)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1], "int64"),
        ([["a"]], "list<element: string>"),
        ([{"role": ["user"], "content": ["a"]}], "struct<"),
        (pa.array([None], pa.null()), "null"),
    ],
)
def test_a_column_of_another_type_is_refused_before_anything_is_read(tmp_path: Path, values: Any, kind: str) -> None:
    inputs = ChatInput(path=write_parquet(tmp_path / "a.parquet", {"messages": values}))
    message = (
        rf"a\.parquet: column 'messages' \(input\.text\) is {kind}.* must hold lists of objects, or strings with JSON\."
    )
    with pytest.raises(UserError, match=message):
        plan_splits(inputs, list_files(inputs))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", {"conversations": pa.array(CHATS, MESSAGES), "messages.role": ["u"] * 60}
    )
    with pytest.raises(
        UserError, match=r"a\.parquet has no column 'messages' \(input\.text\).*columns: conversations, me"
    ):
        texts_of(path=path)
    assert chats_of(path=path, text="conversations", keep=["messages.role"]) == CHATS
    path = write(tmp_path / "a.jsonl", b'{"conversations": []}\n')
    with pytest.raises(
        UserError, match=r"a\.jsonl, line 1: there is no field 'messages' \(input\.text\); its fields: conv"
    ):
        texts_of(path=path)


def test_lists_are_only_read_where_chats_are(tmp_path: Path) -> None:
    inputs = Input(path=write_files(tmp_path)["lists"], text="messages")
    with pytest.raises(UserError, match=r"column 'messages' \(input\.text\) is list<.*, but must hold strings\."):
        plan_splits(inputs, list_files(inputs))


def test_text_files_are_refused(tmp_path: Path) -> None:
    inputs = ChatInput(path=[write(tmp_path / "a.jsonl", to_jsonl(CHATS)), write(tmp_path / "b.txt", "hello")])
    with pytest.raises(UserError, match=r"^b\.txt is a text file, but chats are read from parquet and jsonl files\."):
        plan_splits(inputs, list_files(inputs))


def test_sizes_are_those_of_all_parts_of_the_column(tmp_path: Path) -> None:
    contents = [f"{number} " + "x" * 1_000 for number in range(200)]
    chats = [[{"role": "user", "content": content}] for content in contents]
    path = write_parquet(
        tmp_path / "a.parquet", {"other": contents, "messages": pa.array(chats, MESSAGES)}, row_group_size=10
    )
    inputs = ChatInput(path=path, part_bytes=30_000)
    assert 200_000 < estimate_text_bytes(inputs, list_files(inputs)) < 250_000
    assert 5 < len(plan_splits(inputs, list_files(inputs))) < 9


def test_a_large_row_group_of_chats_is_read_a_few_mebibytes_at_a_time(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": f"{number} " + "x" * 50_000}] * 2 for number in range(300)]
    path = write_parquet(tmp_path / "a.parquet", {"messages": pa.array(chats, MESSAGES)})
    inputs = ChatInput(path=path)
    [split] = plan_splits(inputs, list_files(inputs))
    tables = [read.table for read in read_tables(split, inputs)]
    assert max(table["text"].nbytes for table in tables) < 20_000_000
    assert [json.loads(text) for table in tables for text in table["text"].to_pylist()] == chats


def test_equal_long_messages_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dictionary keeps a repeated value once, so that a small file may become a large one."""
    monkeypatch.setattr("etl.inputs.parquet._EXPANDED_BYTES", 2**24)
    chats = [[{"role": "user", "content": "x" * 500_000}] * 4 for _ in range(60)]
    path = write_parquet(tmp_path / "a.parquet", {"messages": pa.array(chats, MESSAGES)})
    assert Path(path).stat().st_size < 1_000_000
    inputs = ChatInput(path=path)
    [split] = plan_splits(inputs, list_files(inputs))
    sizes = [read.table["text"].nbytes for read in read_tables(split, inputs)]
    assert sum(sizes) > 60 * 2_000_000
    assert max(sizes) < 2**24 * 1.1


def test_chats_that_were_read_are_encoded_as_those_that_were_written(tmp_path: Path) -> None:
    """In parquet every message has the fields of all, which are null where it had none."""
    template = ChatTemplate.load(write_chat_tokenizer(tmp_path / "tokenizer", TEMPLATES["qwen"]))
    call = {"function": {"name": "look", "arguments": {"at": "x"}}}
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "It is 42.", "reasoning_content": "Hm."},
    ]
    paths = [
        write(tmp_path / "a.jsonl", to_jsonl([chat])),
        write_parquet(tmp_path / "b.parquet", {"messages": pa.array([chat])}),
        write_parquet(tmp_path / "c.parquet", {"messages": [json.dumps(chat)]}),
    ]
    ids, mask = template.encode(chat, "as written")
    for read_chat in chats_of(path=paths):
        read_ids, read_mask = template.encode(read_chat, "as read")
        assert read_ids.tolist() == ids.tolist()
        assert read_mask.tolist() == mask.tolist()
