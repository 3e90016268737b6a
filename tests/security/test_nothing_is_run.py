"""Nothing that a recipe, an array, an index or a model's folder contains is run: a trap tells if it is."""

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from etl import pipeline
from etl.engine import Engine, StageFailed
from etl.parts import MARKER, file_facts, read_array
from etl.recipe import Recipe, load_recipe, resolved_yaml
from etl.work import STAGES
from nextlong.config import Embedding
from nextlong.embedding import Embedder
from nextlong.errors import UserError
from nextlong.indexing import lists_of, merge_lists, new_index, read_index, train, write_lists
from nextlong.keywords import QueryModel
from nextlong.model_folder import fingerprint
from nextlong.recipes import sections, vet
from tests.etl.test_cli import nextlong
from tests.etl.test_pipeline import run
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]
ROOT = Path(__file__).parent.parent.parent


class Trap:
    """Pickled, it makes a folder when it is loaded; as a module, when it is imported."""

    def __init__(self, folder: Path) -> None:
        self.sprung = folder / "sprung"
        self.code = f"import os\nos.mkdir({str(self.sprung)!r})\nclass Sprung: pass\n"

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sprung),)


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


@pytest.fixture
def trap_module(trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that python finds and no one may import."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "trap_module.py").write_text(trap.code)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'modules'}:{ROOT}")
    return "trap_module"


def test_the_traps_spring_where_they_are_not_heeded(trap: Trap, trap_module: str) -> None:
    __import__(trap_module)
    assert trap.sprung.exists()
    trap.sprung.rmdir()
    pickle.loads(pickle.dumps(trap))
    assert trap.sprung.exists()


RECIPE: dict[str, Any] = {
    "input": {"path": "corpus.parquet"},
    "output": "work",
    "tokenizer": "tokenizer.json",
    "synthesis": {"target_length_tokens": 100},
}
NAMED = {"class_path": "trap_module.Sprung", "init_args": {}}


@pytest.mark.parametrize(
    "changed",
    [
        {"embedding": NAMED},
        {"cluster": NAMED},
        {"input": NAMED},
        {"synthesis": "trap_module.Sprung"},
        {"cluster": "trap_module.Sprung"},
        {"embedding.class_path": "trap_module.Sprung"},
        {"class_path": "trap_module.Sprung"},
        {"recipe": "another.yaml"},
        {"chunking": "another.yaml"},
        {"chunking": "https://127.0.0.1:9/another.yaml"},
        {"chunking": ["another.yaml"]},
        {"embedding": {"__path__": "another.yaml"}},
        {"<<": {"embedding": NAMED}},
    ],
    ids=str,
)
def test_a_recipe_names_no_class_and_no_other_file(
    changed: dict[str, Any], trap: Trap, trap_module: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    vet(path, Recipe)
    path.write_text(yaml.safe_dump(RECIPE | changed).replace("'<<'", "<<"))
    with pytest.raises(UserError, match=rf"^recipe {path}: .*(must be settings|is no setting)[^\n]*$"):
        vet(path, Recipe)
    assert not trap.sprung.exists()


@pytest.mark.parametrize("verb", ["run", "plan", "compare"])
def test_every_verb_that_takes_a_recipe_vets_it(verb: str, trap: Trap, trap_module: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"embedding": NAMED}))
    assert "embedding.class_path is no setting" in nextlong(verb, path, status=2).stderr
    assert not trap.sprung.exists()


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch SPRUNG']",
        "!!python/object/new:os.system ['touch SPRUNG']",
        "!!python/name:trap_module.Sprung",
        "!!python/module:trap_module",
        "!!python/object:trap_module.Sprung {}",
    ],
)
def test_yaml_tags_of_a_recipe_make_no_objects(tag: str, trap: Trap, trap_module: str, tmp_path: Path) -> None:
    for place in ("embedding", "cluster"):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(RECIPE) + f"{place}: {tag.replace('SPRUNG', str(trap.sprung))}\n")
        refused = nextlong("run", path, status=2)
        assert "could not determine a constructor for the tag" in refused.stderr
        assert not trap.sprung.exists()


@pytest.mark.parametrize("first", [0, *in_soak(1, 2)])
def test_a_value_of_any_setting_is_no_class(trap: Trap, trap_module: str, tmp_path: Path, first: int) -> None:
    import dataclasses

    path, tried = tmp_path / "recipe.yaml", 0
    fields = [(name, field.name) for name, each in sections(Recipe).items() for field in dataclasses.fields(each)]
    for place, (name, field) in enumerate(fields[first::3]):
        value = ("trap_module.Sprung", NAMED, [NAMED])[place % 3]
        kind = {"kind": "LocalCluster"} if name == "cluster" else {}
        path.write_text(yaml.safe_dump(RECIPE | {name: RECIPE.get(name, kind) | {field: value}}))
        vet(path, Recipe)
        try:
            load_recipe(str(path))
        except UserError:
            tried += 1
        assert not trap.sprung.exists(), (name, field, value)
    assert tried > 10


def _object_array(trap: Trap) -> Any:
    array = np.empty(2, object)
    array[:] = trap
    return array


def test_an_array_of_objects_is_refused(trap: Trap, tmp_path: Path) -> None:
    path = tmp_path / "part-00000.npy"
    np.save(path, _object_array(trap), allow_pickle=True)
    with pytest.raises(UserError, match=r"part-00000\.npy is no array of numbers"):
        read_array(path)
    path.write_bytes(pickle.dumps(trap))
    with pytest.raises(UserError, match=r"part-00000\.npy is no array of numbers"):
        read_array(path)
    assert not trap.sprung.exists()


@pytest.mark.parametrize("retrieval", ["embeddings", "bm25"])
def test_no_array_of_a_work_folder_makes_objects(make_recipe: MakeRecipe, trap: Trap, retrieval: str) -> None:
    """Each kind of array in turn is hostile, with the checksum that its manifest then would have."""
    recipe = make_recipe(mining={"retrieval": retrieval, "near_duplicate_overlap": 0.8})
    work, _ = run(recipe)
    whole = work.path.with_name("whole")
    shutil.copytree(work.path, whole)
    kinds = {
        (stage, path.relative_to(folder.path).as_posix().translate(str.maketrans("", "", "0123456789"))): path
        for stage, folder in work.stages.items()
        for path in sorted(folder.path.rglob("*.npy"))
    }
    assert len(kinds) >= 6
    failed = set()
    for (stage, kind), path in kinds.items():
        np.save(path, _object_array(trap), allow_pickle=True)
        manifest = work[stage].manifest_file
        facts = json.loads(manifest.read_text())
        name = path.relative_to(work[stage].path).as_posix()
        for files in (facts["files"], *[part["files"] for part in facts["parts"]]):
            if name in files:
                files[name] = file_facts(path)
        manifest.write_text(json.dumps(facts))
        for later in STAGES[STAGES.index(stage) + 1 :]:
            work[later].reopen()
            for marker in work[later].path.glob(f"*{MARKER}"):
                marker.unlink()
        try:
            pipeline.run(pipeline.start(recipe), Engine())
        except (UserError, StageFailed):
            failed.add(kind)
        assert not trap.sprung.exists(), (stage, kind)
        shutil.rmtree(work.path)
        shutil.copytree(whole, work.path)
    wanted = {"bm/indptr.csc.index.npy"} if retrieval == "bm25" else {"part-.npy", "offsets.npy", "text_hashes.npy"}
    assert failed >= wanted, failed


def _on_disk_index(folder: Path, elsewhere: Path) -> Path:
    """An index whose file says that its lists are in another one."""
    index = new_index("IVF2,Flat", 8)
    vectors = np.random.default_rng(0).random((100, 8), np.float32)
    train(index, vectors)
    lists = faiss.OnDiskInvertedLists(2, index.code_size, str(elsewhere))
    index.replace_invlists(lists)
    index.add_with_ids(vectors, np.arange(100))
    faiss.write_index(index, str(folder / "shard.faiss"))
    write_lists(index, folder / "lists.faiss")
    return folder / "shard.faiss"


def test_an_index_whose_lists_are_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    elsewhere = tmp_path / "elsewhere"
    path = _on_disk_index(tmp_path / "work", elsewhere)
    before = elsewhere.read_bytes()
    with pytest.raises(UserError, match=r"shard\.faiss keeps its inverted lists in another file"):
        read_index(path, is_mapped=True)
    with pytest.raises(UserError, match=r"FAISS cannot read .*shard\.faiss"):
        read_index(path)
    trained = new_index("IVF2,Flat", 8)
    train(trained, np.random.default_rng(0).random((100, 8), np.float32))
    with pytest.raises(UserError, match=r"FAISS cannot read .*lists\.faiss"):
        merge_lists(trained, path.with_name("lists.faiss"))
    shutil.copyfile(elsewhere, tmp_path / "work" / "elsewhere")  # now found beside the index
    for read in (lambda: read_index(path), lambda: merge_lists(trained, path.with_name("lists.faiss"))):
        with pytest.raises(UserError, match="keeps its inverted lists in another file"):
            read()
    assert elsewhere.read_bytes() == before
    assert lists_of(trained).ntotal == 0


def test_a_file_that_is_no_index_is_told(tmp_path: Path) -> None:
    (tmp_path / "shard.faiss").write_bytes(b"no index at all, but some bytes")
    with pytest.raises(UserError, match=r"FAISS cannot read .*shard\.faiss"):
        read_index(tmp_path / "shard.faiss")


@pytest.fixture
def onnx_folder(model_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(model_folder, tmp_path / "model")
    return tmp_path / "model"


def _with_external_data(folder: Path, location: str) -> bytes:
    """Make a model's table external, at some place; the bytes that belong there."""
    model = onnx.load(folder / "model.onnx")
    [table] = [each for each in model.graph.initializer if each.name == "table"]
    data = numpy_helper.to_array(table).tobytes()
    table.ClearField("raw_data")
    table.data_location = TensorProto.EXTERNAL
    entry = table.external_data.add()
    entry.key, entry.value = "location", location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return data


@pytest.mark.parametrize("place", ["above", "absolute", "link", "folder link"])
def test_external_data_stays_in_the_models_folder(onnx_folder: Path, tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside" / "table.bin"
    outside.parent.mkdir()
    locations = {"above": "../outside/table.bin", "absolute": str(outside), "folder link": "inner/table.bin"}
    outside.write_bytes(_with_external_data(onnx_folder, locations.get(place, "table.bin")))
    if place == "link":
        (onnx_folder / "table.bin").symlink_to(outside)
    elif place == "folder link":
        (onnx_folder / "inner").symlink_to(outside.parent)
    with pytest.raises(UserError, match=r"none inside it|outside its folder"):
        fingerprint(onnx_folder, Embedding())
    with pytest.raises(UserError, match=r"cannot load .*model\.onnx: .*(escapes model directory|Absolute path)"):
        Embedder.load(onnx_folder, Embedding())


def test_external_data_in_the_folder_and_in_a_hubs_cache_is_read(onnx_folder: Path, tmp_path: Path) -> None:
    (onnx_folder / "table.bin").write_bytes(_with_external_data(onnx_folder, "table.bin"))
    vector = Embedder.load(onnx_folder, Embedding()).embed(["a cell"]).vectors
    snapshot = tmp_path / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    for path in onnx_folder.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert fingerprint(snapshot, Embedding()) == fingerprint(onnx_folder, Embedding())
    assert (Embedder.load(snapshot, Embedding()).embed(["a cell"]).vectors == vector).all()


def test_an_operator_of_a_library_of_its_own_is_refused(onnx_folder: Path) -> None:
    model = onnx.load(onnx_folder / "model.onnx")
    model.graph.node[-1].domain = "their.library"
    model.opset_import.append(helper.make_opsetid("their.library", 1))
    (onnx_folder / "model.onnx").write_bytes(model.SerializeToString())
    (onnx_folder / "libtheir.so").write_bytes(b"\x7fELF")
    with pytest.raises(UserError, match=r"cannot load .*model\.onnx: .*their\.library"):
        Embedder.load(onnx_folder, Embedding())


@pytest.fixture
def queries(query_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(query_folder, tmp_path / "queries")
    return tmp_path / "queries"


def _change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | fields))


def test_pickled_weights_are_not_read(queries: Path, trap: Trap) -> None:
    import torch
    from safetensors.torch import load_file

    (queries / "pytorch_model.bin").write_bytes(pickle.dumps(trap))
    QueryModel.load(str(queries))  # the safetensors beside it
    torch.save(load_file(queries / "model.safetensors"), queries / "pytorch_model.bin")
    (queries / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no \.safetensors file, and weights of other formats are not read"):
        QueryModel.load(str(queries))
    (queries / "part.safetensors").write_bytes(b"")  # under no name that is looked for
    for weights in ((queries / "pytorch_model.bin").read_bytes(), pickle.dumps(trap)):
        (queries / "pytorch_model.bin").write_bytes(weights)
        with pytest.raises(UserError, match=r"cannot be used: .*model\.safetensors"):
            QueryModel.load(str(queries))
    assert not trap.sprung.exists()


@pytest.mark.parametrize("model_type", ["t5", "their_model"])
def test_code_in_a_models_folder_is_not_run(queries: Path, trap: Trap, model_type: str) -> None:
    for name in ("configuration_their", "modeling_their", "tokenization_their"):
        (queries / f"{name}.py").write_text(trap.code)
    named = {
        "AutoConfig": "configuration_their.Sprung",
        "AutoModelForSeq2SeqLM": "modeling_their.Sprung",
        "AutoTokenizer": ["tokenization_their.Sprung", "tokenization_their.Sprung"],
    }
    _change(queries / "config.json", auto_map=named, model_type=model_type)
    _change(queries / "tokenizer_config.json", auto_map=named)
    if model_type == "t5":
        QueryModel.load(str(queries))
    else:
        with pytest.raises(UserError, match="contains custom code"):
            QueryModel.load(str(queries))
    assert not trap.sprung.exists()


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "them/kernel"},
        {"_attn_implementation": "them/kernel"},
        {"_attn_implementation_internal": {"encoder": "them/kernel"}},
        {"text_config": {"attn_implementation": "them/kernel"}},
    ],
    ids=str,
)
def test_attention_from_the_hub_is_refused(queries: Path, config: dict[str, Any]) -> None:
    _change(queries / "config.json", **config)
    with pytest.raises(UserError, match="asks for the attention 'them/kernel', which may be code of the hub"):
        QueryModel.load(str(queries))


def test_files_of_other_folders_are_not_read(queries: Path, query_folder: Path) -> None:
    (queries / "model.safetensors").rename(queries / "other.safetensors")
    weights = {"weight_map": {"shared.weight": str(query_folder / "model.safetensors")}}
    _change(queries / "model.safetensors.index.json", **weights)
    with pytest.raises(UserError, match="which is none inside it"):
        QueryModel.load(str(queries))
    _change(queries / "adapter_config.json", base_model_name_or_path=str(query_folder))
    with pytest.raises(UserError, match=r"adapter_config\.json, which names another model"):
        QueryModel.load(str(queries))


_CALLS = {"eval", "exec", "compile", "__import__"}
_METHODS = {
    ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("yaml", "load_all"), ("torch", "load"),
    ("os", "system"), ("os", "popen"),
}  # fmt: skip
_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "runpy"}
_KEYWORDS = {"allow_pickle": False, "trust_remote_code": False, "weights_only": True, "shell": False}
_BETWEEN_OWN_PROCESSES = {"etl/quarantine.py": ["pickle"]}  # by a file without a name
_IMPORT_BY_NAME = {"etl/cluster.py": 1}  # of a fixed list of kinds


def _runs_data(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _CALLS:
            found.append(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [f"{node.value.id}.{node.attr}"] if (node.value.id, node.attr) in _METHODS else []
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name.split(".")[0] in _MODULES]
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found += [module] if module.split(".")[0] in _MODULES else []
            found += [each.name for each in node.names if (module, each.name) in _METHODS]
        if isinstance(node, ast.keyword) and node.arg in _KEYWORDS:
            is_safe = isinstance(node.value, ast.Constant) and node.value.value is _KEYWORDS[node.arg]
            found += [] if is_safe else [f"{node.arg}="]
        if isinstance(node, ast.Dict):
            pairs = [(key.value, value) for key, value in zip(node.keys, node.values, strict=True)
                     if isinstance(key, ast.Constant) and key.value in _KEYWORDS]  # fmt: skip
            found += [str(key) for key, value in pairs
                      if not (isinstance(value, ast.Constant) and value.value is _KEYWORDS[str(key)])]  # fmt: skip
    return found


@pytest.mark.parametrize(
    "code",
    ["eval(x)", "f = exec", "import pickle", "from torch import load", "torch.load(f)", "yaml.load(f, Loader=L)",
     "np.load(f, allow_pickle=True)", "load(f, trust_remote_code=remote)", "d = {'trust_remote_code': True}",
     "run(c, shell=True)", "from os import system"],
)  # fmt: skip
def test_code_that_runs_data_would_be_found(code: str) -> None:
    assert _runs_data(ast.parse(code))
    assert not _runs_data(ast.parse(f"# {code}\n'''{code}'''"))


_HTML = [f"etl/explore/{name}.py" for name in ("long_document", "packed_row", "run", "tables")]
"""What shows itself in a notebook; tests/etl/explore/test_reprs.py gives them hostile names and texts."""


def test_no_module_runs_data() -> None:
    paths = sorted([*(ROOT / "etl").rglob("*.py"), *(ROOT / "nextlong").rglob("*.py")])
    assert len(paths) > 60
    for path in paths:
        code = path.read_text()
        name = path.relative_to(ROOT).as_posix()
        assert _runs_data(ast.parse(code)) == _BETWEEN_OWN_PROCESSES.get(name, []), path
        assert code.count("import_module(") == _IMPORT_BY_NAME.get(name, 0), path
        is_html = "_repr_html_(" in code
        assert is_html == (name in _HTML), f"{path}: text of documents in HTML must be escaped, and tested"


@pytest.mark.parametrize("workers", [0, 1])
def test_modules_in_the_current_folder_are_not_run(
    make_recipe: MakeRecipe, trap: Trap, tmp_path: Path, workers: int
) -> None:
    """As in a corpus that was downloaded, and in which a run is started."""
    (tmp_path / "recipe.yaml").write_text(resolved_yaml(make_recipe()))
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("multiprocessing", "json", "random", "signal", "numpy", "pandas", "distributed", "etl", "nextlong"):
        (folder / f"{name}.py").write_text(trap.code)
    command = [str(Path(sys.executable).with_name("nextlong")), "run", "../recipe.yaml", "--workers", str(workers)]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert not trap.sprung.exists(), ran.stderr
    assert ran.returncode == 0, ran.stderr
