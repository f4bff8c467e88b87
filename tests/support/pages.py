"""A page taken apart with the standard parser: elements, texts, links."""

from __future__ import annotations

from html.parser import HTMLParser

__all__ = ["Page"]

VOID = frozenset({"meta", "img", "br", "hr", "input", "link", "col"})


class Page(HTMLParser):
    """Parses on construction; an element closed out of order is an ``AssertionError``.

    Attributes:
        elements: (tag, attributes), in order.
        sections: id of a section -> its text.
        text: All text outside ``style``.
        style: The style sheets.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {}
        self.text = ""
        self.style = ""
        self._open: list[tuple[str, str]] = []
        self.feed(source)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        assert len(found) == len(attrs), f"an attribute of {tag} is given twice"
        self.elements.append((tag, found))
        if tag not in VOID:
            self._open.append((tag, found.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if any(tag == "style" for tag, _ in self._open):
            self.style += data
            return
        self.text += data
        for tag, name in self._open:
            if tag == "section":
                self.sections[name] = self.sections.get(name, "") + data

    def tags(self) -> set[str]:
        """Names of all elements."""
        return {tag for tag, _ in self.elements}

    def values(self, *names: str) -> list[str]:
        """Values of the attributes of these names, over all elements."""
        return [found[name] for _, found in self.elements for name in names if name in found]
