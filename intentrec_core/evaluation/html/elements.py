"""HTML and SVG elements. Whatever is no element already is text, and is escaped here and nowhere else.

Titles and ids come from a catalogue that others write: none of their characters may become markup.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

#: Controls, halves of surrogate pairs, and code points that are no characters: a document may not hold them.
_NOT_ALLOWED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_VOID = frozenset({"meta", "br"})


class Html(str):
    """Text that is HTML already. Only this module makes it."""

    __slots__ = ()


Child = str | Iterable["Child"] | None
"""An element, a text, several of them, or nothing."""


def element(name: str, *children: Child, **attributes: str | float | None) -> Html:
    """An element. Attributes are named as in HTML, with _ for - and a trailing _ where Python has the word; None leaves one out.

    Raises: ValueError for an attribute that could load or run something.
    """
    opened = [name]
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        if attribute in ("src", "srcset", "data", "action", "style") or attribute.startswith("on"):
            raise ValueError(f"attribute {attribute} of {name}: allowed are those that load and run nothing")
        if attribute == "href" and not str(value).startswith("#"):
            raise ValueError(f"href {value!r}: allowed are places in the page, #name")
        if value is not None:
            opened.append(f'{attribute}="{text(_number(value))}"')
    begin = f"<{' '.join(opened)}>"
    return Html(begin if name in _VOID else f"{begin}{joined(children)}</{name}>")


def style_sheet(css: str) -> Html:
    """The page's own style sheet.

    Raises: ValueError for one that loads something, or ends its element.
    """
    if re.search(r"url\(|@import|<", css):
        raise ValueError("a style sheet of the report loads nothing and holds no markup")
    return Html(f"<style>{css}</style>")


def document(page: Html) -> str:
    """The whole file, from its element html."""
    return f"<!DOCTYPE html>\n{page}\n"


def joined(children: Child) -> Html:
    """Elements and texts one after another."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return text(children)
    return Html("".join(joined(child) for child in children))


def text(value: str) -> Html:
    """Text, escaped for content and for attributes alike; what a document may not hold becomes U+FFFD."""
    return Html(html.escape(_NOT_ALLOWED.sub("\ufffd", value), quote=True))


def foreign(value: str) -> Html:
    """Text of others, such as a title: its direction of writing stays its own."""
    return element("bdi", value)


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
