"""An ONNX model in, its int8 version out, made once in the user's cache; nothing is written beside the model."""

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from nextlong.errors import UserError

_LARGEST_PROTOBUF_BYTES = 2**31 - 1  # of one ONNX file; a larger model keeps its weights in a file beside it


def cache_folder() -> Path:
    """Where the user keeps what can be made again: $XDG_CACHE_HOME/nextlong, by default ~/.cache/nextlong."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nextlong"


def int8_model(file: Path, identity: str) -> Path:
    """The int8 version of an ONNX file, from the user's cache; where there is none yet it is made first.

    identity: names the file's content, so that another content gets another version. Making it takes some seconds for
    20 million weights, and a few times the model's size in memory and for a while on the disk; whoever else wants it
    meanwhile waits. It is written aside and renamed. Raises UserError when the package onnx is missing, or the file
    has no float32 matrix that a MatMul multiplies by.
    """
    import onnxruntime

    folder = cache_folder() / "models" / "int8"
    made = folder / f"{identity}-{onnxruntime.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{made}.lock"):
        if not (made / "model.onnx").is_file():
            with tempfile.TemporaryDirectory(prefix=".int8-", dir=folder) as aside:
                _quantize(file, Path(aside) / "made")
                os.rename(Path(aside) / "made", made)
    return made / "model.onnx"


def scales_by_call(file: Path) -> bool:
    """Whether an ONNX file scales its activations by the greatest of all that share a call, as dynamic int8 does."""
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"DynamicQuantize") >= 0  # how the operators' names begin


def _quantize(file: Path, folder: Path) -> None:
    """Write a new folder with the int8 version of an ONNX file."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise UserError(
            "embedding.precision is 'int8', for which the package onnx is missing. "
            "Run: pip install 'nextlong[int8]'. Or set it to null."
        ) from error
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    try:
        model = onnx.load(file)
    except Exception as error:  # the library's own kinds derive from nothing narrower
        raise UserError(f"{file} cannot be read as ONNX: {error}. Fetch or export it again.") from error
    _check_matrices(model, file)
    num_bytes = sum(len(each.raw_data) for each in model.graph.initializer)
    folder.mkdir()
    add_pre_process_metadata(model)  # else the library advises that through the root logger
    # Seven bits of weight: where a processor has no VNNI, products of eight saturate. A scale for each column: with one
    # for the matrix the cosine to the float32 vectors falls from 0.994 to 0.82.
    quantize_dynamic(
        model,
        folder / "model.onnx",
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=num_bytes > _LARGEST_PROTOBUF_BYTES,
    )
    for path in folder.iterdir():
        with open(path, "rb+") as written:
            os.fsync(written.fileno())


def _check_matrices(model: Any, file: Path) -> None:
    import onnx

    floats = {each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT}
    if not any(node.op_type == "MatMul" and node.input[1] in floats for node in model.graph.node):
        raise UserError(
            f"embedding.precision is 'int8', but {file} has no float32 matrices to make int8 ones of. "
            f"Name its float32 file (embedding.file), or set embedding.precision to null to use this one as it is."
        )
