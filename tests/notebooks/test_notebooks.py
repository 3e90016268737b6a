"""The notebooks run from top to bottom on a small corpus, warn of nothing, show what they promise, are kept bare."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SIZES = {
    "01_one_document": {"target_length_tokens": 1024},
    "02_corpus": {"target_length_tokens": 1024, "workers": 1},
    "03_negatives": {"target_length_tokens": 1024, "granularities": [1024, 2048]},
    "04_training": {
        "target_length_tokens": 1024,
        "documents_a_row": 2,
        "rows_a_step": 1,
        "steps": 2,
        "hidden_size": 64,
    },
}
SHOWN = {
    "01_one_document": ["nextlong-strip", "own_document", "the meta-chunks are the document: True"],
    "02_corpus": ["dask", "Lengths of chunks", "exact_copy"],
    "03_negatives": ["Similarity to the meta-chunk by rank", "2,048 characters", "Milliseconds a query"],
    "04_training": ["Held-out loss by role", "largest change of a loss", "0.0000"],
}


def _read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_is_one_notebook_for_each_of_what_is_tested() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(SIZES) == list(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    notebook = _read(path)
    nbformat.validate(notebook)
    for cell in _code(notebook):
        assert (cell.outputs, cell.execution_count) == ([], None)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert len({cell["id"] for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_prose_and_short_cells_and_begins_with_what_may_be_changed(path: Path) -> None:
    cells = _read(path).cells
    assert cells[0].source.startswith("# ")
    assert (cells[1].metadata.tags, cells[1].source.startswith("corpus = ")) == (["parameters"], True)
    assert all(len(cell.source.splitlines()) <= 20 for cell in cells)
    assert not any(word in cell.source for cell in _code(_read(path)) for word in ("def ", "class "))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_without_a_warning_and_shows_what_it_promises(
    path: Path, corpus_file: Path, tokenizer_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    made = {"corpus": corpus_file, "folder": tmp_path, "tokenizer": tokenizer_file, "model": model_folder}
    notebook = _read(path)
    settings = {name: str(value) for name, value in made.items()} | {"documents": 100} | SIZES[path.stem]
    notebook.cells[1].source = "\n".join(f"{name} = {value!r}" for name, value in settings.items()) + _untouched(
        notebook
    )
    client = NotebookClient(notebook, timeout=150, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=_environment())
    outputs = [output for cell in _code(notebook) for output in cell.outputs]
    assert [each.text for each in outputs if each.output_type == "stream" and each.name == "stderr"] == []
    shown = "\n".join(str(each.get("text", "")) + str(each.get("data", "")) for each in outputs)
    for words in SHOWN[path.stem]:
        assert words in shown


def _untouched(notebook: Any) -> str:
    """Those of the cell's own lines that set what the test does not."""
    wanted = ("scheduler",)
    lines = notebook.cells[1].source.splitlines()
    return "".join(f"\n{line}" for line in lines if line.split(" = ")[0] in wanted)


def _environment() -> dict[str, str]:
    import os

    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "default",
    }
