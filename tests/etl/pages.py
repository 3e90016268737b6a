"""What an HTML page holds, by the standard library's parser."""

import json
from html.parser import HTMLParser
from typing import Any

_VOID = {"input", "meta", "link", "br", "img"}


class Page(HTMLParser):
    """The tags of a page with their attributes, its text without styles and scripts, and what its scripts say."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside != "style":
            self.texts.append((inside, data))

    @property
    def text(self) -> str:
        """All that is read."""
        return " ".join(text for _, text in self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every tag of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    def figures(self) -> list[dict[str, Any]]:
        """The plotly figures of the light page."""
        return [json.loads(script)["light"] for script in self.scripts if script.startswith('{"light"')]

    def tiles(self) -> dict[str, str]:
        """The figures that stand first, by what they are."""
        numbers, names = ([text for tag, text in self.texts if tag == wanted] for wanted in ("dd", "dt"))
        return dict(zip(names, numbers, strict=True))
