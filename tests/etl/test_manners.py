"""Manners of the command line: help on a screen, the word that was meant, no noise, and completion in a real shell."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etl.cli import _parser, main
from etl.completion import script
from etl.recipe import RECIPES, Recipe, resolved_yaml
from nextlong.spelling import nearest
from tests.etl.test_cli import nextlong, refused
from tests.etl.test_pipeline import run
from tests.forked import NEXTLONG

SHORT = (
    "run",
    "plan",
    "compare",
    "demo",
    "status",
    "peek",
    "report",
    "clean",
    "train",
    "export",
    "mix",
    "verify",
    "trace",
)
LONG = ("", "pack", "convert", "completion")  # with as many options, or verbs


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the command line changes in its process is as before."""
    for name in ("PYTHONSAFEPATH", "HF_HUB_VERBOSITY"):
        monkeypatch.setenv(name, "")
    before = {name: [*logging.getLogger(name).handlers] for name in ("etl", "nextlong", "training")}
    yield
    for name, handlers in before.items():
        logging.getLogger(name).handlers = handlers


@pytest.mark.parametrize("verb", [*SHORT, *LONG])
def test_help_fits_a_screen_of_80_columns_and_has_an_example(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*filter(None, [verb]), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert lines[0].startswith(f"usage: nextlong {verb}".rstrip())
    assert max(map(len, lines)) <= 80
    assert len(lines) <= (24 if verb in SHORT else 30)
    assert any(line.startswith(f"Example: nextlong {verb}") for line in lines[-2:]) or not verb


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["exprot"], "there is no verb 'exprot'. Did you mean export? See nextlong --help."),
        (["xyzzy"], "there is no verb 'xyzzy'. See nextlong --help."),
        (["clean", "x", "--form", "mine"], "--form is no option of nextlong clean. Did you mean --from?"),
        (["clean", "x", "--zzz"], "--zzz is no option of nextlong clean. See nextlong clean --help."),
        (["clean", "x", "y"], "y is one argument too many. See nextlong clean --help."),
        (["clean"], "the following arguments are required: work. See nextlong clean --help."),
        (["clean", "x", "--from", "mien"], "'pack'). Did you mean mine? See nextlong clean --help."),
        (["peek", "x", "--sample", "a"], "argument --sample: 'a' is not a whole number. See nextlong peek --help."),
        (["run", "x", "--wrokers", "2"], "--wrokers is no option and no field of a recipe. Did you mean --workers?"),
        (["run", "x", "--synthesis.num_sample=2"], "Did you mean --synthesis.num_samples?"),
        (["run", "x", "--synthesis.num-samples", "2"], "Did you mean --synthesis.num_samples?"),
        (["run", "x", "--syntesis.seed", "2"], "Did you mean --synthesis.seed?"),
        (["run", "x", "--seed", "2"], "Did you mean --synthesis.seed?"),
        (["run", "x", "--zzz", "2"], "--zzz is no option and no field of a recipe. nextlong run --fields lists the"),
        (["run", "x", "y"], "y is one argument too many"),
        (["run", "defualt"], "there is no such file. Did you mean default?"),
        (["train", "tiyn"], "there is no such file. Did you mean tiny?"),
        (["train", "tiny", "--model.pth", "x"], "Did you mean --model.path?"),
        (["compare", "x", "--strategies", "qest"], "Did you mean quest?"),
        (["export", "nowhere", "--out", "x"], "nowhere is no folder. Give a work folder"),
        (["status", "nowhere"], "nowhere is no work folder of a run: there is no such folder."),
    ],
)
def test_a_mistake_is_one_sentence_with_the_word_that_was_meant(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(words)
    except SystemExit as ended:
        status = int(str(ended.code))
    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == ""
    assert printed.err.startswith("nextlong: ")
    assert printed.err.count("\n") == 1
    assert sentence in printed.err


def test_a_misspelt_setting_in_a_file_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("synthesis: {target_lenght_tokens: 3}\n")
    refused = nextlong("run", tmp_path / "recipe.yaml", status=2).stderr
    assert "synthesis.target_lenght_tokens is no setting. Did you mean synthesis.target_length_tokens?" in refused


def test_every_field_of_a_recipe_is_known_as_an_option() -> None:
    fields = RECIPES.fields()
    assert len(fields) > 60
    assert {"output", "input.path", "synthesis.seed", "cluster.kind"} <= {*fields}
    RECIPES.check_fields([f"--{field}=1" for field in fields])
    RECIPES.check_fields(["--cluster.options.queue=1", "--input.path+=x", "--cluster=null"])


def test_the_nearest_word_is_near() -> None:
    assert nearest("exprot", ["export", "demo"]) == "export"
    assert nearest("seed", ["sees", "synthesis.seed"]) == "synthesis.seed"
    assert nearest("export", ["demo", "run"]) is None
    assert nearest("", ["demo"]) is None


def test_the_verb_alone_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "Start with: nextlong demo" in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_defect(make_recipe: Callable[..., Recipe]) -> None:
    run(make_recipe())
    for words in ("--help", f"peek {make_recipe().output}"):
        script = f"set -o pipefail; {' '.join(NEXTLONG)} {words} | true"
        ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=100)
        assert (ran.returncode, ran.stderr) == (0, ""), words


def test_folders_that_cannot_be_written_and_columns_that_are_not_there_are_told_before_any_work(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(resolved_yaml(make_recipe()))
    inside = recipe_file / "work"
    said = refused("run", recipe_file, "--output", inside, "--workers", 0)
    assert f"output {inside} cannot be written to (Not a directory). Give another folder with --output." in said
    said = refused("run", recipe_file, "--input.text", "body")
    assert "has no column 'body' (input.text), or has it twice; its columns: id, text, source." in said
    assert "preflight" not in said
    assert not (tmp_path / "work").exists()
    (tmp_path / "notes.md").write_text("A note.")
    said = refused("run", recipe_file, "--input.path", tmp_path / "notes.md", "--workers", 0)
    assert "text files have none. Leave them out, or set them to null." in said


def test_a_folder_around_a_work_folder_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "demo" / "work").mkdir(parents=True)
    (tmp_path / "demo" / "work" / "recipe.resolved.yaml").write_text("")
    assert f"Did you mean {tmp_path}/demo/work?" in nextlong("peek", tmp_path / "demo", status=2).stderr


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """(a line as typed) -> what bash offers for its last word; files are those of a folder of its own."""
    pytest.importorskip("shtab")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "corpus.yaml").write_text("")
    (folder / "work").mkdir()
    file = folder / "nextlong.bash"
    file.write_text(nextlong("completion", "bash").stdout)

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        code = f"""
            source {file}
            [[ $(complete -p nextlong) =~ -F\\ ([^ ]+) ]] || exit 3
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${{#COMP_LINE}}
            ${{BASH_REMATCH[1]}}
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        ran = subprocess.run(
            ["bash", "-c", code, "bash", *words], capture_output=True, text=True, cwd=folder, timeout=30
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""
        return ran.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nextlong exp", ["export", "export-check"]),
        ("nextlong completion ", ["bash", "zsh", "fish"]),
        ("nextlong run --report", ["--report-dask"]),
        ("nextlong run x.yaml --synthesis.num_s", ["--synthesis.num_samples"]),
        ("nextlong run x.yaml --mining.retrieval ", ["embeddings", "bm25"]),
        ("nextlong run x.yaml --only in", ["index", "interleave"]),
        ("nextlong run cor", ["corpus.yaml"]),
        ("nextlong run x.yaml --reuse wo", ["work"]),
        ("nextlong train x.yaml --model.precision float", ["float32", "float64"]),
        ("nextlong export work --format m", ["mds", "megatron"]),
    ],
)
def test_bash_completes(completion: Callable[[str], list[str]], line: str, offered: list[str]) -> None:
    assert completion(line) == offered


def test_every_shells_script_has_the_fields_and_starts_no_python(
    completion: Callable[[str], list[str]],
) -> None:
    offered = completion("nextlong run x.yaml --")
    assert {f"--{field}" for field in RECIPES.fields()} <= {*offered}
    for shell in ("bash", "zsh", "fish"):
        text = script(_parser(), shell)
        assert "synthesis.target_length_tokens" in text
        assert "python" not in text.lower()


def test_completion_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
