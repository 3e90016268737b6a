"""A strip is to scale, tells of every segment, and shows hostile text as text."""

import re
from html.parser import HTMLParser

from etl.strip import ROLES, Span, strip_html


def _span(role: str = "negative", start: int = 0, end: int = 10, **facts: object) -> Span:
    known: dict = {"rank": 3, "score": 0.5, "doc_id": 7, "source_id": "seven", "chunk_index": 2, "text": "words"}
    return Span(role=role, start=start, end=end, **(known | facts))


class _Page(HTMLParser):
    """The tags with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "input":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def inputs(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "input"]


def test_boxes_stand_where_their_tokens_do_and_are_as_wide():
    spans = [_span("meta", 0, 250, rank=-1, score=None), _span(start=250, end=300), _span("meta", 300, 1000)]
    page = _Page(strip_html("title", spans, total_tokens=1000))
    assert [each["style"] for each in page.inputs()] == [
        "left:0.000%;width:25.000%",
        "left:25.000%;width:5.000%",
        "left:30.000%;width:70.000%",
    ]
    assert not page.open


def test_a_segment_tells_document_chunk_rank_similarity_and_tokens():
    (box,) = _Page(strip_html("title", [_span(end=9)], total_tokens=9)).inputs()
    assert box["aria-label"] == "negative · document seven · chunk 2 · rank 3 · similarity 0.500 · tokens 0 to 9"
    (box,) = _Page(strip_html("title", [_span("meta", rank=-1, score=None)], total_tokens=10)).inputs()
    assert box["aria-label"] == "meta · document seven · chunk 2 · tokens 0 to 10"


def test_the_legend_counts_the_roles_that_are_there():
    spans = [_span(role, 10 * place, 10 * place + 10) for place, role in enumerate(ROLES)]
    text = _Page(strip_html("title", spans, total_tokens=50)).text
    assert all(f"1 {name}, 20.0% of tokens" in text for name in ROLES.values())
    assert "repeats" not in _Page(strip_html("title", [_span()], total_tokens=10)).text.split("}")[-1]


def test_hostile_text_stays_text():
    hostile = "</p></form><script>alert(1)</script><img src=http://x.example onerror='alert(1)'>\" \x00\x1b[31m"
    page = _Page(strip_html(hostile, [_span(source_id=hostile, text=hostile)], total_tokens=10))
    assert {tag for tag, _ in page.tags} <= set("form style p span i button fieldset input div b em".split())
    assert page.text.count("<script>alert(1)</script>") == 3
    assert not re.search(r"[\x00\x1b]", page.text)
    assert not page.open


def test_long_texts_are_cut_and_the_rest_is_counted():
    page = _Page(strip_html("title", [_span(text="x" * 5000)], total_tokens=10, max_text_chars=600))
    assert "x" * 600 in page.text
    assert "x" * 601 not in page.text
    assert "4,400 more characters" in page.text


def test_a_thousand_segments_stay_light():
    spans = [_span(start=100 * place, end=100 * place + 100, text="x" * 4000) for place in range(1000)]
    assert len(strip_html("title", spans, total_tokens=100_000)) < 1_100_000


def test_strips_on_one_page_share_no_ids_and_run_no_script():
    html = strip_html("title", [_span()], total_tokens=10)
    assert not [attributes for _, attributes in _Page(html).tags if "id" in attributes]
    assert not re.search(r"<script|\son\w+=|https?:|url\(|@import", html)


def test_no_segments_and_no_texts_make_a_strip_too():
    assert _Page(strip_html("title", [], total_tokens=0)).inputs() == []
    assert len(_Page(strip_html("title", [_span(text=None)], total_tokens=0)).inputs()) == 1
