"""Facts and charts in, one HTML page out that loads nothing: style, scripts and numbers are in it."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from etl.report.charts import SECTIONS, Chart
from etl.report.facts import Facts
from etl.report.figures import DARK, LIGHT
from etl.report.headline import headline, index_facts, method
from etl.report.long_documents import RULE
from etl.strip import strip_html
from etl.work import STAGES

_CHARS_SHOWN = 400
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(facts: Facts, charts: Sequence[Chart]) -> str:
    """The page as HTML. Whatever text of documents and folders is in it is escaped; its own policy forbids to load."""
    title = f"{_text(facts.name)}: report"
    body = "".join(_body(facts, charts))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>\n{_own("page.css")}</style></head>\n<body><main>\n{body}</main>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>\n{_own('page.js')}</script>\n</body></html>\n"
    )


def _body(facts: Facts, charts: Sequence[Chart]) -> Iterator[str]:
    yield f"<h1>{_text(facts.name)}</h1>\n<p>{_text(method(facts))}</p>\n"
    if facts.missing:
        missing = ", ".join(facts.missing)
        yield f'<p class="missing">Not finished: {missing}. What these stages tell is missing here.</p>\n'
    tiles = "".join(f"<div><dd>{_text(number)}</dd><dt>{_text(what)}</dt></div>" for what, number in headline(facts))
    yield f'<dl class="tiles">{tiles}</dl>\n'
    yield "<noscript><p>The figures need scripts; their numbers are in tables under them.</p></noscript>\n"
    for section in SECTIONS:
        here = [chart for chart in charts if chart.section == section]
        if here:
            yield f'<h2>{section}</h2>\n<div class="charts">{"".join(map(_chart, here))}</div>\n'
    yield from _index(facts)
    yield from _long_documents(facts)
    yield '<h2>All accounts</h2>\n<p class="told">Of every stage: read = kept + dropped by reason.</p>\n'
    yield _accounts(facts)
    yield f"<h2>Recipe and versions</h2>\n<pre>{_text(facts.recipe_yaml)}</pre>\n"
    yield _table(("package", "version"), sorted(facts.versions.items()))


def _chart(chart: Chart) -> str:
    figures = {name: json.loads(chart.draw(colours).to_json()) for name, colours in (("light", LIGHT), ("dark", DARK))}
    data = json.dumps(figures, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f"<section{' class=wide' if chart.is_wide else ''}><h3>{_text(chart.title)}</h3>"
        f'<p class="told">{_text(chart.told)}</p>'
        f'<div class="scroll"><script type="application/json">{data}</script>'
        f'<div class="figure" role="img" aria-label="{_text(chart.title)}"></div></div>'
        f"<details><summary>numbers</summary>{_table(chart.head, chart.rows)}</details></section>\n"
    )


def _index(facts: Facts) -> Iterator[str]:
    rows = index_facts(facts)
    if rows:
        yield "<h2>Index</h2>\n" + _table(("", ""), rows)


def _long_documents(facts: Facts) -> Iterator[str]:
    if not facts.long_documents:
        return
    num = facts.stages["interleave"].rows
    which = f"{RULE}, of {num:,}" if num > len(facts.long_documents) else f"All {num:,}"
    yield f'<h2>Long documents</h2>\n<p class="told">{which}. '
    yield "Point at a segment for where it comes from, click it to read it."
    if all(span.text is None for each in facts.long_documents for span in each.spans):
        yield " Texts are not shown: the tokenizer of the recipe is not on this machine."
    yield "</p>\n"
    for each in facts.long_documents:
        yield strip_html(each.title, each.spans, total_tokens=each.total_tokens, max_text_chars=_CHARS_SHOWN) + "\n"


def _accounts(facts: Facts) -> str:
    rows = []
    for stage in STAGES:
        account = facts.stages[stage].account if stage in facts.stages else None
        for unit, count in account.counts.items() if account else ():
            reasons = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in count.dropped.items())
            rows.append((stage, unit, f"{count.read:,}", f"{count.kept:,}", reasons or "-"))
        for note, number in account.notes.items() if account else ():
            rows.append((stage, f"noted: {note.replace('_', ' ')}", f"{number:,}", "", ""))
    return _table(("stage", "unit", "read", "kept", "dropped"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return (
            "<tr>"
            + "".join(f"<{tag}{_align(rows, place)}>{_text(cell)}</{tag}>" for place, cell in enumerate(cells))
            + "</tr>"
        )

    top = row("th", head) if any(head) else ""
    return f'<div class="scroll"><table>{top}{"".join(row("td", cells) for cells in rows)}</table></div>'


def _align(rows: Sequence[Sequence[str]], place: int) -> str:
    cells = [cells[place] for cells in rows]
    is_numeric = all(not cell or cell[0].isdigit() for cell in cells) and place > 0
    return ' class="number"' if is_numeric and any(cells) else ""


def _text(text: Any) -> str:
    return escape(str(text))


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
