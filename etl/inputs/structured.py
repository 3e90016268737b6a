"""A column of lists of objects, such as the messages of chats, in; each value as JSON text, a document's text, out."""

import json
from typing import Any

import pyarrow as pa

from etl.inputs.spans import decode_utf8

WANTED = "a list of objects, or a string that holds one as JSON"
"""What a structured column is read from."""

_JSON = json.JSONDecoder(strict=False)


def to_json(value: Any) -> str | None:
    """The JSON text of a list, or of the list that a string holds as JSON; None: null. A blank string stays as it is.

    Raises ValueError, of which the message is part of a sentence, for anything else.
    """
    if isinstance(value, str) and not value.strip():
        return value
    try:
        found = _JSON.decode(value) if isinstance(value, str) else value
        text = json.dumps(found, ensure_ascii=False)
    except json.JSONDecodeError as error:
        raise ValueError(f"a string, but not of JSON ({error.msg} at column {error.pos + 1})") from error
    except ValueError as error:
        raise ValueError(f"JSON that cannot be read ({error})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not (found is None or isinstance(found, list)):
        raise ValueError("JSON, but no list")
    return None if found is None else text


def is_structured(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of objects."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    views = (pa.types.is_list_view, pa.types.is_large_list_view)
    if not any(is_list(kind) for is_list in lists + views):
        return False
    return bool(pa.types.is_struct(kind.value_type) or pa.types.is_map(kind.value_type))


def to_python(column: pa.ChunkedArray) -> tuple[list[Any], list[int]]:
    """Values of a column of lists as JSON knows them, and the places where bytes that are no UTF-8 became U+FFFD.

    A null field is left out: in parquet every object of a list has the fields of all. What JSON has no word for (a
    date, a decimal) becomes a string.
    """
    try:
        return [_plain(value, []) for value in column.to_pylist(maps_as_pydicts="lossy")], []
    except UnicodeDecodeError:
        values, replaced = [], []
        for place, value in enumerate(column.cast(_as_bytes(column.type)).to_pylist(maps_as_pydicts="lossy")):
            marks: list[bool] = []
            values.append(_plain(value, marks))
            if any(marks):
                replaced.append(place)
        return values, replaced


def _plain(value: Any, is_replaced: list[bool]) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        text, replaced = decode_utf8(value)
        is_replaced.append(replaced)
        return text
    if isinstance(value, dict):
        return {_plain(key, is_replaced): _plain(each, is_replaced) for key, each in value.items() if each is not None}
    return [_plain(each, is_replaced) for each in value] if isinstance(value, list) else str(value)


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type with bytes for strings."""
    if is_structured(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_as_bytes(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _as_bytes(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_as_bytes(kind.key_type), _as_bytes(kind.item_type))
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_string = kind in (pa.string(), pa.large_string(), pa.string_view())
    return pa.large_binary() if is_string else kind
