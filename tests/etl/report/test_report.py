"""The page of a work folder: its numbers are the run's, nothing is fetched, and whatever is in the data stays text."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

import etl.report
from etl.cli import main
from etl.report import write_report
from etl.report.charts import charts
from etl.report.facts import Facts, read_facts
from etl.report.page import page
from etl.work import Work
from nextlong.accounting import Account
from nextlong.errors import UserError
from tests.etl.pages import Page
from tests.etl.report.conftest import STRATEGIES

WorkOf = Callable[[str], Path]
HOSTILE = "</script><script>alert(1)</script><img src=http://x.example onerror=alert(1)>\"'<b>"
TAGS = (
    "html head meta title link style body main h1 small p dl div dd dt noscript h2 h3 section script details summary "
    "table tr th td form button span i fieldset input b em pre"
).split()


@cache
def facts_of(folder: Path) -> Facts:
    return read_facts(Work.open(folder))


@cache
def page_of(folder: Path) -> Page:
    return parsed(facts_of(folder))


def parsed(facts: Facts) -> Page:
    """The page without plotly's own script, which is long."""
    html = page(facts, charts(facts))
    assert html.count(get_plotlyjs()) == 1
    return Page(html.replace(get_plotlyjs(), ""))


def unfinished(folder: Path, tmp_path: Path, *stages: str) -> Path:
    """A copy of a work folder in which stages are not finished."""
    copy = tmp_path / "work"
    shutil.copytree(folder, copy)
    for stage in stages:
        Work.open(copy)[stage].reopen()
    return copy


def test_the_key_figures_are_those_of_the_summary(work_of: WorkOf) -> None:
    stages = json.loads((work_of("nextlong") / "summary.json").read_text())["stages"]
    values, account = stages["interleave"]["values"], stages["read"]["account"]
    shown = page_of(work_of("nextlong")).tiles()
    assert shown["documents read"] == f"{account['documents']['read']:,}" == "120"
    assert shown["of them kept"] == f"{account['documents']['kept']:,}"
    assert shown["chunks"] == f"{stages['chunk']['rows']:,}"
    assert shown["tokens of the corpus"] == f"{stages['chunk']['account']['tokens']['kept']:,}"
    assert shown["long documents"] == f"{stages['interleave']['rows']:,}"
    assert shown["tokens in them"] == f"{stages['interleave']['account']['tokens']['kept']:,}"
    assert shown["share of meta text"] == f"{values['meta_ratio']:.1%}"
    assert shown["mean similarity"] == f"{values['mean_similarity']:.3f}"
    assert shown["recall of the index"] == f"{stages['index']['values']['recall']:.3f}"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_drop_is_shown_with_its_reason_and_number(work_of: WorkOf, strategy: str) -> None:
    shown, stages = page_of(work_of(strategy)), facts_of(work_of(strategy)).stages
    drops = [
        f"{number:,} {reason.replace('_', ' ')}"
        for stage in stages.values()
        for count in stage.account.counts.values()
        for reason, number in count.dropped.items()
    ]
    assert len(drops) > 3
    assert all(drop in shown.text for drop in drops)
    assert not shown.open


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_enters_a_node_of_a_flow_leaves_it_or_ends_there(work_of: WorkOf, strategy: str) -> None:
    sankeys = [
        figure["data"][0] for figure in page_of(work_of(strategy)).figures() if figure["data"][0]["type"] == "sankey"
    ]
    assert len(sankeys) >= 3
    for sankey in sankeys:
        link, labels = sankey["link"], sankey["node"]["label"]
        for node, label in enumerate(labels):
            enters, leaves = (
                sum(number for place, number in zip(link[end], link["value"], strict=True) if place == node)
                for end in ("target", "source")
            )
            assert int(label.split("  ")[-1].replace(",", "")) == (enters or leaves)
            assert leaves in (0, enters) or node == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_shows_what_it_has_and_no_more(work_of: WorkOf, strategy: str) -> None:
    found = {chart.title for chart in charts(facts_of(work_of(strategy)))}
    always = {"Documents", "Chunks", "Tokens", "Seconds a stage", "Memory a stage"}
    negatives = {"Similarity by rank", "Reuse of inserted chunks"} if strategy != "nextlong-self-repeat" else set()
    extended = {"Candidates", "Distance between neighbouring meta-chunks", "Share of meta text"} | negatives
    assert found == always | (extended if strategy.startswith("nextlong") else {"Reuse of inserted chunks"})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ten_long_documents_are_shown_with_their_texts(work_of: WorkOf, strategy: str) -> None:
    documents = facts_of(work_of(strategy)).long_documents
    assert len(documents) == 10
    for each in documents:
        assert each.spans[-1].end == each.total_tokens == 1024
        assert all(span.text and span.source_id.startswith("doc-") for span in each.spans)


def test_a_segments_text_and_origin_are_its_chunks(work_of: WorkOf) -> None:
    from etl.origins import chunk_origins

    work = Work.open(work_of("nextlong"))
    chunk_ids = range(work["chunk"].manifest()["rows"])  # type: ignore[index]
    texts = {
        (each.doc_id, each.source_id, each.chunk_index): each.text for each in chunk_origins(work, chunk_ids).values()
    }
    spans = [span for each in facts_of(work_of("nextlong")).long_documents for span in each.spans]
    assert len(spans) > 50
    whole = [
        span.text.rstrip("\n") == texts[span.doc_id, span.source_id, span.chunk_index] for span in spans if span.text
    ]
    assert all(
        texts[span.doc_id, span.source_id, span.chunk_index].startswith((span.text or "").rstrip("\n�"))
        for span in spans
    )
    assert sum(whole) > len(whole) / 2  # the last negative of a meta-chunk may be shortened


def test_nothing_is_fetched_and_a_policy_forbids_it(work_of: WorkOf) -> None:
    shown = page_of(work_of("nextlong"))
    addresses = [
        value for _, attributes in shown.tags for name, value in attributes.items() if name in ("src", "href", "action")
    ]
    assert addresses == ["data:,"]
    policies = [each["content"] for each in shown.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policies
    assert "default-src 'none'" in str(policies[0])


def test_hostile_text_stays_text(work_of: WorkOf) -> None:
    facts = facts_of(work_of("nextlong"))
    account = Account()
    account.add("documents", read=3, kept=2, dropped={HOSTILE: 1})
    document = facts.long_documents[0]
    spans = [span._replace(source_id=HOSTILE, text=HOSTILE) for span in document.spans]
    hostile = facts._replace(
        name=HOSTILE,
        recipe_yaml=HOSTILE,
        recipe={"synthesis": {"strategy": HOSTILE}},
        versions={HOSTILE: HOSTILE},
        stages=facts.stages | {"read": facts.stages["read"]._replace(account=account)},
        long_documents=[document._replace(title=HOSTILE, spans=spans)],
    )
    shown, plain = parsed(hostile), page_of(work_of("nextlong"))
    assert {tag for tag, _ in shown.tags} <= set(TAGS)
    assert len(shown.all("script")) == len(plain.all("script"))
    assert shown.text.count("<script>alert(1)</script>") > 8
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
    labels = [label for figure in shown.figures() for label in figure["data"][0].get("node", {}).get("label", [])]
    assert not [label for label in labels if "<" in label]


@pytest.mark.parametrize("finished", [1, 2, 6])
def test_an_unfinished_folder_tells_what_is_there_and_what_is_missing(
    work_of: WorkOf, tmp_path: Path, finished: int
) -> None:
    names = ["read", "chunk", "embed", "index", "mine", "interleave", "pack"]
    folder = unfinished(work_of("nextlong"), tmp_path, *names[finished:])
    shown = page_of(folder)
    assert f"Not finished: {', '.join(names[finished:])}." in shown.text
    assert "documents read" in shown.tiles()
    assert ("tokens of the corpus" in shown.tiles()) == (finished >= 2)
    assert bool(shown.all("form")) == (finished >= 6)
    assert "Not finished" not in page_of(work_of("nextlong")).text


def test_a_folder_in_which_nothing_was_begun_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "recipe.resolved.yaml").write_text("synthesis: {strategy: nextlong}\n")
    assert "Not finished: read, chunk" in page_of(tmp_path).text


def test_without_the_tokenizer_the_strips_have_no_texts_and_say_so(work_of: WorkOf, tmp_path: Path) -> None:
    folder = unfinished(work_of("nextlong"), tmp_path)
    recipe = folder / "recipe.resolved.yaml"
    recipe.write_text(re.sub(r"tokenizer: /.*", "tokenizer: some/hub-id", recipe.read_text()))
    assert "the tokenizer of the recipe is not on this machine" in page_of(folder).text
    assert "the tokenizer of the recipe" not in page_of(work_of("nextlong")).text


def test_the_command_writes_the_page_aside_and_renames_it(
    work_of: WorkOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unfinished(work_of("standard"), tmp_path)
    before = {path.name for path in folder.iterdir()}
    assert main(["report", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == before | {"report.html"}
    assert main(["report", str(folder), "--out", str(tmp_path / "other.html")]) == 0
    assert (tmp_path / "other.html").read_bytes() == (folder / "report.html").read_bytes()
    assert str(tmp_path / "other.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{tmp}"], "is no work folder"),
        (["{work}", "--out", "{tmp}"], "Give the name of a file"),
        (["{work}", "--out", "{tmp}/none/report.html"], "Give the name of a file"),
    ],
)
def test_mistakes_end_in_one_sentence(
    work_of: WorkOf, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    filled = [each.format(tmp=tmp_path, work=work_of("standard")) for each in arguments]
    assert main(["report", *filled]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "- a\n", "\x00"])
def test_a_recipe_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.resolved.yaml").write_text(text)
    with pytest.raises(UserError, match="recipe"):
        facts_of(tmp_path)


def test_without_plotly_one_sentence_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("etl.report.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(etl.report, name.rpartition(".")[2])
    hidden: dict[str, Any] = {"plotly": None, "plotly.graph_objects": None, "plotly.offline": None}
    for name, module in hidden.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(UserError, match=r"pip install 'nextlong\[report\]'"):
        write_report(tmp_path / "no-such-folder")
