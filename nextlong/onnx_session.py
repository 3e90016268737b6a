"""An ONNX file in, a session on CUDA or the CPU out: CUDA only where a device and its libraries really load."""

import contextlib
import ctypes
import io
import warnings
from pathlib import Path
from typing import Any

from nextlong.errors import UserError


def open_session(file: Path, device: str, num_threads: int) -> tuple[Any, str, str]:
    """A session, its provider, and a remark for the log on why that is not CUDA."""
    problem = None if device == "cpu" else _cuda_problem()
    if device != "cpu" and problem is None:
        session = _new_session(file, ["CUDAExecutionProvider", "CPUExecutionProvider"], num_threads)
        if "CUDAExecutionProvider" in session.get_providers():
            return session, "CUDA", ""
        problem = _cuda_library_problem()
    if device == "cuda":
        raise UserError(f"embedding.device is 'cuda', but {problem}. Mend that, or use 'auto' or 'cpu'.")
    return _new_session(file, ["CPUExecutionProvider"], num_threads), "CPU", f" ({problem})" if problem else ""


def _new_session(file: Path, providers: list[str], num_threads: int) -> Any:
    import onnxruntime

    options = session_options(num_threads)
    onnxruntime.set_default_logger_severity(4)  # a provider that does not load prints through this one
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers, enable_fallback=0)
    except Exception as error:  # the library's own kinds derive from nothing narrower
        advice = "Use its float32 file (embedding.file)" if "16" in file.stem else "Fetch or export it again"
        version, reason = onnxruntime.__version__, " ".join(str(error).split())
        raise UserError(f"ONNX Runtime {version} cannot load {file}: {reason}. {advice}.") from error
    finally:
        onnxruntime.set_default_logger_severity(2)


def session_options(num_threads: int) -> Any:
    """Of every session: threads of one call, and silence."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised besides
    return options


def _cuda_problem() -> str | None:
    """What keeps CUDA from being tried; None if nothing does. The libraries of NVIDIA's packages are then loaded."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this ONNX Runtime is built without CUDA; the package onnxruntime-gpu has it"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver: libcuda.so.1 is not found"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return f"the NVIDIA driver finds no device, status {status}"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        onnxruntime.preload_dlls()
    return None


def _cuda_library_problem() -> str:
    """Why ONNX Runtime's CUDA library did not load; asked only after it failed to, as loading it ahead breaks it."""
    import onnxruntime

    try:
        ctypes.CDLL(str(Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return f"ONNX Runtime's CUDA library does not load: {error}"
    return "ONNX Runtime refused the CUDA device"
