"""A long document's segments in, a strip to scale out: one HTML fragment of its own, without scripts or ids."""

from collections.abc import Iterator, Sequence
from html import escape
from math import isnan
from typing import NamedTuple

from etl.terminal import printable_lines

ROLES = {
    "meta": "meta-chunks",
    "negative": "negatives",
    "repeat": "repeats",
    "document": "chunks of whole documents",
    "special": "special tokens",
}
"""Roles of a segment, in the order of the legend."""

LIGHT = {"meta": "#0b5cab", "negative": "#d07c00", "repeat": "#8e4ec6", "document": "#0e7d67", "special": "#85888d"}
DARK = {"meta": "#6cb2ff", "negative": "#d99a2b", "repeat": "#c39bea", "document": "#3fb59b", "special": "#7d8187"}
"""Colours of the roles on a light and on a dark page: told apart by the colour-blind, 3:1 or more against the page."""


class Span(NamedTuple):
    """A segment of a long document, with what is known of its chunk."""

    role: str
    start: int
    end: int
    """Tokens [start, end) of the long document."""
    rank: int
    """Place among the candidates, 0 the nearest; -1 where nothing was looked up."""
    score: float | None
    doc_id: int
    source_id: str
    chunk_index: int
    text: str | None
    """None where it was not read."""


def strip_html(title: str, spans: Sequence[Span], *, total_tokens: int, max_text_chars: int = 600) -> str:
    """A strip to scale of `total_tokens`: to hover and to click, or with Tab and the arrow keys.

    Under the pointer a segment tells its document, chunk, rank, similarity and tokens; a click shows the first
    max_text_chars of its text. Without scripts, and several fit on one page: radio buttons, drawn as boxes, in a form
    of their own that is never sent. All texts are escaped.
    """
    total = max([1, total_tokens, *(span.end for span in spans)])
    boxes = "".join(_boxes(spans, total, max_text_chars))
    return (
        f'<form class="nextlong-strip" method="dialog" autocomplete="off" data-lm-suppress-shortcuts="true">{_STYLE}'
        f'<p class="nl-title">{html_text(title)}<button type="reset">close</button></p>{_legend(spans)}'
        f'<fieldset aria-label="segments, to scale"><i class="nl-ground"></i>{boxes}'
        f"{_scale(total)}</fieldset></form>"
    )


def html_text(text: str) -> str:
    """A text for HTML: escaped; what is not seen, or turns the direction of writing, is shown as its escape."""
    return escape(printable_lines(text))


def _boxes(spans: Sequence[Span], total: int, max_text_chars: int) -> Iterator[str]:
    """For every segment a radio button, drawn as a box, and what is shown when it is hovered over or chosen."""
    is_odd, before = False, None
    for span in spans:
        if before is None or before.role != span.role:
            is_odd = False
        elif span.role != "document" or before.doc_id != span.doc_id:  # a document's chunks share a shade
            is_odd = not is_odd
        before = span
        facts = _facts(span)
        place = f"left:{100 * span.start / total:.3f}%;width:{100 * (span.end - span.start) / total:.3f}%"
        role = span.role if span.role in ROLES else "special"
        yield (
            f'<input type="radio" name="segment" class="nl-{role}{" nl-odd" if is_odd else ""}" style="{place}" '
            f'aria-label="{facts}"><div><b>{facts}</b>{_excerpt(span.text, max_text_chars)}</div>'
        )


def _facts(span: Span) -> str:
    tokens = f"tokens {span.start:,} to {span.end:,}"
    if span.role == "special":
        return f"special · {tokens}"
    facts = [span.role]
    facts += [f"rank {span.rank}"] if span.rank >= 0 else []
    facts += [f"similarity {span.score:.3f}"] if span.score is not None and not isnan(span.score) else []
    return " · ".join([*facts, tokens, f"chunk {span.chunk_index} of document {html_text(span.source_id)}"])


def _excerpt(text: str | None, max_chars: int) -> str:
    if text is None:
        return ""
    left = len(text) - max_chars
    more = f"<em>... {left:,} more characters</em>" if left > 0 else ""
    return f'<p dir="auto">{html_text(text[:max_chars])}{more}</p>'


def _legend(spans: Sequence[Span]) -> str:
    """The roles that are there, with their number and share of the tokens."""
    total = max(1, sum(span.end - span.start for span in spans))
    entries = []
    for role, name in ROLES.items():
        here = [span for span in spans if span.role == role]
        if here:
            share = sum(span.end - span.start for span in here) / total
            entries.append(f'<span><i class="nl-{role}"></i>{len(here):,} {name}, {share:.1%} of tokens</span>')
    return f'<p class="nl-legend">{"".join(entries)}</p>'


def _scale(total: int) -> str:
    quarters = "".join(f'<span style="left:{25 * each}%">{total * each // 4:,}</span>' for each in (1, 2, 3))
    return f'<p class="nl-scale">0{quarters}<span>{total:,} tokens</span></p>'


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--nl-{role}:{colour};" for role, colour in colours.items())


_STYLE = f"""<style>
.nextlong-strip{{{_variables(LIGHT)}font:14px/1.45 system-ui,sans-serif;margin:0 0 1.5em;
 container-type:inline-size}}
@media(prefers-color-scheme:dark){{.nextlong-strip{{{_variables(DARK)}}}}}
[data-jp-theme-light=true] .nextlong-strip,.vscode-light .nextlong-strip{{{_variables(LIGHT)}}}
[data-jp-theme-light=false] .nextlong-strip,.vscode-dark .nextlong-strip{{{_variables(DARK)}}}
.nextlong-strip p{{margin:0 0 6px;max-width:none;font:inherit}}
.nextlong-strip .nl-title{{display:flex;gap:16px;align-items:start;font-weight:600;overflow-wrap:anywhere}}
.nextlong-strip .nl-legend{{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px}}
.nextlong-strip .nl-legend i{{display:inline-block;width:11px;height:11px;margin-right:6px}}
.nextlong-strip button{{font:inherit;font-weight:400;color:inherit;background:none;border:1px solid;padding:0 8px;
 border-radius:3px;
 margin-left:auto;opacity:.75;visibility:hidden;cursor:pointer;white-space:nowrap;flex:none}}
.nextlong-strip:has(input:checked) button{{visibility:visible}}
.nextlong-strip fieldset{{position:relative;border:0;margin:0;padding:84px 0 0;min-width:0}}
.nextlong-strip .nl-ground{{position:absolute;top:0;left:0;right:0;height:36px;background:rgba(128,128,128,.14)}}
.nextlong-strip input{{position:absolute;top:6px;height:24px;min-width:1px;margin:0;padding:0;border:0;border-radius:0;
 appearance:none;-webkit-appearance:none;cursor:pointer}}
.nextlong-strip input.nl-meta{{top:0;height:36px}}
{"".join(f".nextlong-strip .nl-{role}{{background:var(--nl-{role})}}" for role in ROLES)}
.nextlong-strip input.nl-odd{{opacity:.78}}
.nextlong-strip input:hover,.nextlong-strip input:checked,.nextlong-strip input:focus-visible{{opacity:1;z-index:1;
 outline:2px solid currentColor;outline-offset:1px}}
.nextlong-strip .nl-scale{{position:absolute;top:38px;left:0;right:0;font-size:12px;opacity:.75}}
.nextlong-strip .nl-scale span{{position:absolute;transform:translateX(-50%)}}
.nextlong-strip .nl-scale span:last-child{{right:0;transform:none}}
.nextlong-strip fieldset b{{position:absolute;top:58px;left:0;right:0;display:none;font-weight:400;font-size:13px;
 white-space:nowrap;overflow:hidden;text-overflow:ellipsis}}
.nextlong-strip input:checked+div b,.nextlong-strip input:hover+div b{{display:block}}
.nextlong-strip fieldset:has(input:hover) input:not(:hover)+div b{{display:none}}
.nextlong-strip fieldset div p{{display:none}}
.nextlong-strip input:checked+div p{{display:block;white-space:pre-wrap;overflow-wrap:anywhere;max-height:16em;
 overflow:auto;padding:8px 12px;margin:0;background:rgba(128,128,128,.12);font:13px/1.5 ui-monospace,monospace}}
@container(max-width:620px){{.nextlong-strip fieldset{{padding-top:104px}}
 .nextlong-strip fieldset b{{white-space:normal;overflow-wrap:anywhere;max-height:40px}}
 .nextlong-strip .nl-scale span:not(:last-child):not([style*=":50"]){{display:none}}}}
.nextlong-strip em{{opacity:.75;font-family:system-ui,sans-serif}}
</style>"""
