"""Texts from outside, as messages show them."""

from __future__ import annotations

__all__ = ["printable", "shown"]


def printable(text: str, keep: str = "") -> str:
    r"""The text with an escape for each character that has no shape of its own or changes the order of others.

    Such are control characters, marks of direction, spaces of no width, and half characters.

    >>> print(printable("a\x1b[31m\u202eb"))
    a\x1b[31m\u202eb

    Args:
        keep: characters that stay, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else repr(letter)[1:-1] for letter in text)


def shown(value: object, limit: int = 60) -> str:
    """A value as one short printable line, for messages."""
    try:
        text = str(value)
    except ValueError:
        # Python writes no int of more than 4,300 digits.
        text = f"{type(value).__name__} of too many digits"
    text = printable(text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"
