"""A token-level output in, one vector a text out, without leaving the device that computed it (Sec. 3.1.2, Eq. 2)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.onnx_session import session_options

_OPSET, _IR_VERSION = 17, 9


class DevicePooling:
    """Runs a model whose output stays where its provider left it, and pools it there with a small model of its own.

    What comes back of a call is one vector a text instead of one a token: of 16,384 tokens in texts of 512, at 1,024
    numbers a token, 128 KiB instead of 64 MiB. The sums are those of the device, so that the last digits may differ
    from those of the host.

    session: an ONNX Runtime session. output: name of its output [texts, tokens, d]. pooling: "mean" or "cls".
    dimensions: how many leading numbers are kept. normalises: whether vectors get length one. Raises
    UserError without the package onnx: pooled elsewhere, the vectors of one worker would not be those of another.
    """

    def __init__(self, session: Any, output: str, pooling: str, dimensions: int, normalises: bool) -> None:
        import onnxruntime

        self._session, self._output = session, output
        providers = session.get_providers()
        self._device = "cuda" if providers[0] == "CUDAExecutionProvider" else "cpu"
        kind = next(each.type for each in session.get_outputs() if each.name == output)
        model = _model(kind, pooling, dimensions, normalises)
        self._pool = onnxruntime.InferenceSession(model, session_options(1), providers=providers, enable_fallback=0)

    def __call__(self, feed: dict[str, NDArray[Any]], lengths: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        """float32 [texts, dimensions] of what feeds the model; lengths [texts]: tokens of each, of width with padding.

        Threads may share it: what is bound is bound for one call.
        """
        bound = self._session.io_binding()
        for name, values in feed.items():
            bound.bind_cpu_input(name, values)
        bound.bind_output(self._output, self._device)
        self._session.run_with_iobinding(bound)
        pooled = self._pool.io_binding()
        pooled.bind_ortvalue_input("states", bound.get_outputs()[0])
        pooled.bind_cpu_input("is_token", np.arange(width) < lengths[:, None])
        pooled.bind_output("vectors", "cpu")
        self._pool.run_with_iobinding(pooled)
        vectors: NDArray[np.float32] = pooled.copy_outputs_to_cpu()[0]
        return vectors


def _model(kind: str, pooling: str, dimensions: int, normalises: bool) -> bytes:
    """An ONNX model of states [texts, tokens, d], of a type such as "tensor(float16)", and is_token [texts, tokens]."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ModuleNotFoundError as error:
        raise UserError(
            "on CUDA vectors are pooled with the help of the package onnx, which is missing. "
            "Run: pip install 'nextlong[gpu]'. Or set embedding.device to 'cpu'."
        ) from error

    node = helper.make_node
    constants = {
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "place_0": np.int64(0),
        "zero": np.float32(0),
        "begin": np.array([0], np.int64),
        "end": np.array([dimensions], np.int64),
        "least_length": np.float32(1e-12),
    }
    means = [
        node("Unsqueeze", ["is_token", "axis_2"], ["is_token_of_state"]),
        node("Where", ["is_token_of_state", "numbers", "zero"], ["kept"]),
        node("ReduceSum", ["kept", "axis_1"], ["sums"], keepdims=0),
        node("Cast", ["is_token"], ["ones"], to=TensorProto.FLOAT),
        node("ReduceSum", ["ones", "axis_1"], ["counts"], keepdims=1),
        node("Div", ["sums", "counts"], ["pooled"]),
    ]
    lengths = [
        node("ReduceL2", ["leading"], ["length"], axes=[1], keepdims=1),
        node("Max", ["length", "least_length"], ["divisor"]),
        node("Div", ["leading", "divisor"], ["vectors"]),
    ]
    nodes = [
        node("Cast", ["states"], ["numbers"], to=TensorProto.FLOAT),
        *(means if pooling == "mean" else [node("Gather", ["numbers", "place_0"], ["pooled"], axis=1)]),
        node("Slice", ["pooled", "begin", "end", "axis_1"], ["leading"]),
        *(lengths if normalises else [node("Identity", ["leading"], ["vectors"])]),
    ]
    types = {
        "tensor(float)": TensorProto.FLOAT,
        "tensor(float16)": TensorProto.FLOAT16,
        "tensor(bfloat16)": TensorProto.BFLOAT16,
        "tensor(double)": TensorProto.DOUBLE,
    }
    states = helper.make_tensor_value_info("states", types[kind], ["texts", "tokens", "numbers"])
    is_token = helper.make_tensor_value_info("is_token", TensorProto.BOOL, ["texts", "tokens"])
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", dimensions])
    used = {name for each in nodes for name in each.input}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(nodes, "pooling", [states, is_token], [vectors], weights)
    opsets = [helper.make_opsetid("", _OPSET)]
    serialized: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION).SerializeToString()
    return serialized
