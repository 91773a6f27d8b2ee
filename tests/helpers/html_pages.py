"""Pages as a browser reads them: whole, and in need of no other file."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Checks that tags are closed in order and that nothing comes from outside."""

    VOID = frozenset({"meta", "img", "br", "line", "rect", "circle", "polyline"})

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.text = [], [], []
        assert "http" not in text
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert tag not in {"script", "link", "iframe", "object"}
        assert not {"href", "onload", "onerror"} & attributes.keys()
        assert attributes.get("src", "data:").startswith("data:")
        self.found.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
