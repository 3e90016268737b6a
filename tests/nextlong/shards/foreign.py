"""MDS folders as others write them: any columns, encodings and splits into shards. Shares no code with ours."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

_CODES = {"u1": 8, "i1": 9, "u2": 16, "i2": 17, "f2": 18, "u4": 32, "i4": 33, "f4": 34, "u8": 64, "i8": 65, "f8": 66}
_WIDTHS = "BHIQ"


def array(values: np.ndarray[Any, Any], *, has_type: bool = False) -> bytes:
    """An array as the encoding ndarray has it, with the byte of its type, or without, as ndarray:TYPE."""
    width = next(k for k, letter in enumerate(_WIDTHS) if max(values.shape) < 256 ** struct.calcsize(f"<{letter}"))
    head = bytes([_CODES[values.dtype.str[1:]]]) if has_type else b""
    head += bytes([values.ndim << 2 | width]) + struct.pack(f"<{values.ndim}{_WIDTHS[width]}", *values.shape)
    return head + values.astype(values.dtype.newbyteorder("<")).tobytes()


def write(
    folder: Path,
    columns: dict[str, tuple[str, int | None]],
    shards: list[list[dict[str, bytes]]],
    *,
    compression: str | None = None,
    prefix: str = "",
) -> Path:
    """Write shards of samples; columns: encoding and size of each, in the order of their names."""
    (folder / prefix).mkdir(parents=True, exist_ok=True)
    names = sorted(columns)
    entries = []
    for number, samples in enumerate(shards):
        entry: dict[str, Any] = {
            "column_encodings": [columns[name][0] for name in names],
            "column_names": names,
            "column_sizes": [columns[name][1] for name in names],
            "compression": compression,
            "format": "mds",
            "hashes": [],
            "size_limit": 1 << 26,
            "version": 2,
        }
        config = json.dumps(entry, sort_keys=True).encode()
        values = []
        for sample in samples:
            sizes = [len(sample[name]) for name in names if columns[name][1] is None]
            values.append(struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(sample[name] for name in names))
        offsets = [8 + 4 * len(samples) + len(config)]
        for each in values:
            offsets.append(offsets[-1] + len(each))
        data = struct.pack(f"<{len(samples) + 2}I", len(samples), *offsets) + config + b"".join(values)
        name = f"{prefix}shard.{number:05d}.mds"
        entry |= {"samples": len(samples), "raw_data": _facts(name, data), "zip_data": None}
        if compression is not None:
            data, name = pa.compress(data, "zstd", asbytes=True), f"{name}.zstd"
            entry["zip_data"] = _facts(name, data)
        (folder / name).write_bytes(data)
        entries.append(entry)
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": entries}))
    return folder


def _facts(name: str, data: bytes) -> dict[str, Any]:
    return {"basename": name, "bytes": len(data), "hashes": {}}
