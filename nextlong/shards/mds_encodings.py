"""The encodings of MDS columns: bytes of a value in, the value out; and the head that stands before an array.

An array is its type, where the column does not say | dimensions << 2 | width of its shape | its shape | its numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPE_OF_CODE = {
    8: "uint8",
    9: "int8",
    16: "uint16",
    17: "int16",
    18: "float16",
    32: "uint32",
    33: "int32",
    34: "float32",
    64: "uint64",
    65: "int64",
    66: "float64",
}
FIXED_BYTES = {"int": 8} | {name: np.dtype(name).itemsize for name in _TYPE_OF_CODE.values()}


def array_head(shape: tuple[int, ...]) -> bytes:
    """What stands before the numbers of an array whose type is known: its shape, in the smallest unsigned type."""
    width = next(width for width in range(4) if max(shape) < 1 << (8 << width))
    return bytes([len(shape) << 2 | width]) + np.array(shape, f"<u{1 << width}").tobytes()


def decoder(encoding: str) -> Callable[[NDArray[np.uint8]], Any]:
    """What makes a value of its bytes: str, int, a number, or an array, a view of them; of other encodings the bytes.

    It raises ValueError, IndexError or KeyError for bytes that are no such value.
    """
    kind, _, rest = encoding.partition(":")
    if kind == "str":
        return lambda data: data.tobytes().decode()
    if kind in FIXED_BYTES and not rest:
        number = _dtype("int64" if kind == "int" else kind)
        return lambda data: data.view(number)[0].item()
    if kind == "ndarray":
        name, _, shape = rest.partition(":")
        dtype = _dtype(name) if name else None
        fixed = tuple(map(int, shape.split(","))) if shape else None
        return lambda data: _array(data, dtype, fixed)
    return lambda data: data


def _dtype(name: str) -> np.dtype[Any]:
    if name not in _TYPE_OF_CODE.values():
        raise ValueError(f"there is no type {name}")
    return np.dtype(name).newbyteorder("<")


def _array(data: NDArray[np.uint8], dtype: np.dtype[Any] | None, shape: tuple[int, ...] | None) -> NDArray[Any]:
    place = 0
    if dtype is None:
        dtype, place = _dtype(_TYPE_OF_CODE[int(data[0])]), 1
    if shape is None:
        ndim, width = int(data[place]) >> 2, 1 << (int(data[place]) & 3)
        end = place + 1 + ndim * width
        shape, place = tuple(data[place + 1 : end].view(f"<u{width}").tolist()), end
    if len(shape) > 32:
        raise ValueError(f"an array of {len(shape)} dimensions")
    return data[place:].view(dtype).reshape(shape)
