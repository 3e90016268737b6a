"""Each trap of the three programs is found, with a remedy; a good folder has none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etl.cli import main
from evaluation.export_check import Finding, check_export
from nextlong.errors import UserError
from tests.evaluation.models_made import write_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all three can read."""
    from transformers import PreTrainedTokenizerFast

    folder = write_model(tmp_path_factory.mktemp("made") / "checked")
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|end|>").save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    _change("config.json", rope_theta=10000.0, torch_dtype="bfloat16")(folder)
    return folder


def _change(name: str, **changed: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        told = json.loads((folder / name).read_text()) | changed
        (folder / name).write_text(json.dumps({key: value for key, value in told.items() if value is not None}))

    return change


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: str = "") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content)

    return write


def _not_ok(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.level != "ok"]


def test_a_good_folder_has_no_finding(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(made, tmp_path / "plain")
    assert _not_ok(check_export(folder, length_tokens=512)) == []
    assert main(["export-check", str(folder)]) == 0
    assert "0 warnings, 0 faults" in capsys.readouterr().out


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "config": (_remove("config.json"), "config.json is not there"),
    "architectures": (_change("config.json", architectures=["LlamaModel"]), "has architectures"),
    "positions": (_change("config.json", max_position_embeddings=None), "no max_position_embeddings"),
    "short": (_change("config.json", max_position_embeddings=256), "512 tokens is longer than the model's 256"),
    "rope hidden": (
        _change("config.json", rope_theta=None, rope_parameters={"rope_theta": 500000.0}),
        "rope_parameters alone",
    ),
    "rope twice": (_change("config.json", rope_theta=500.0), "states rope_theta twice"),
    "eos": (_change("generation_config.json", eos_token_id=None), "no eos_token_id"),
    "eos beyond": (_change("generation_config.json", eos_token_id=258), "not in the vocabulary of 258"),
    "eos ordinary": (_change("generation_config.json", eos_token_id=[0, 40]), "of ordinary text: answers would end"),
    "no generation": (_remove("generation_config.json"), "no eos_token_id"),
    "weights": (_remove("model.safetensors"), "model.safetensors is not there"),
    "shard": (_write("model.safetensors.index.json", '{"weight_map": {"a": "part-2.safetensors"}}'), "part-2"),
    "tokenizer": (_write("tokenizer.json", "{}"), "tokenizer.json is not there or cannot be read"),
    "vocabulary": (_change("config.json", vocab_size=100), "258 entries, but the model 100"),
    "other tokens": (
        _change("tokenizer_config.json", tokenizer_class="GPT2Tokenizer", add_prefix_space=True),
        "makes other tokens than tokenizer.json",
    ),
    "pad": (_change("tokenizer_config.json", eos_token=None), "names no eos_token"),
    "code": (_write("modeling_made.py"), "there is code in the folder"),
    "auto map": (_change("config.json", auto_map={"AutoConfig": "a.B"}), "auto_map names code"),
}
WARNINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "dtype": (_change("config.json", torch_dtype=None), "no torch_dtype"),
    "chat": (_remove("chat_template.jinja"), "no chat template"),
    "nemo": (_write("tokenizer.model"), "NeMo's tokenizer"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_with_a_remedy(
    made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, about = FAULTS[name]
    change(folder := shutil.copytree(made, tmp_path / "plain"))
    found = [each for each in _not_ok(check_export(folder, length_tokens=512)) if about in each.about]
    assert [each.level for each in found] == ["fault"]
    assert found[0].remedy
    assert main(["export-check", str(folder), "--length", "512"]) == 1
    assert about in capsys.readouterr().out


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_is_no_fault(made: Path, tmp_path: Path, name: str) -> None:
    change, about = WARNINGS[name]
    change(folder := shutil.copytree(made, tmp_path / "plain"))
    (found,) = _not_ok(check_export(folder))
    assert found.level == "warning"
    assert about in found.about
    assert main(["export-check", str(folder)]) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpt-like", ["HELMET sends prompts to OpenAI", "LongBench v2 takes a name with 'gpt'"]),
        ("my-claude", ["HELMET sends prompts to Anthropic"]),
        ("gemini/model", ["HELMET sends prompts to Google"]),
        ("Yarn", ["HELMET turns flash attention off for a path with 'yarn'"]),
        ("gemma", ["HELMET does not prefill"]),
        ("demo128k", ["LongBench v2 takes a name with 'o1'"]),
        ("demo128k/model", []),
        ("GPT", []),
    ],
)
def test_names_are_looked_at_as_the_programs_do(made: Path, tmp_path: Path, name: str, said: list[str]) -> None:
    found = _not_ok(check_export(shutil.copytree(made, tmp_path / "n" / name)))
    assert len(found) == len(said)
    for each, about in zip(found, said, strict=True):
        assert about in each.about
        assert each.level == "warning"


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        check_export(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"neither config\.json nor tokenizer\.json"):
        check_export(tmp_path)
    assert main(["export-check", str(tmp_path)]) == 2
