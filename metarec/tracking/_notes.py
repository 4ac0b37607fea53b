"""Descriptions of runs in Markdown, where text from outside has no meaning of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from metarec.errors import printable

__all__ = ["Markdown", "markdown_code", "markdown_table", "markdown_text"]

_MARKS = re.compile(
    r"[\\`*|~]"  # code, emphasis, cells
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; between letters or digits it has no meaning
    r"|\](?=\s*[(\[:])"  # the end of a link's text
    r"|:(?=//)|(?<=www)\."  # addresses, which MLflow makes links of
)


class Markdown(str):
    """Text that is Markdown already, so that it is not escaped."""

    __slots__ = ()


def markdown_text(value: object) -> Markdown:
    r"""Any text, in one line, as Markdown that shows it as it is.

    Only what would have a meaning is escaped, as both CommonMark and MLflow's page understand it.

    >>> print(markdown_text("inner_lr [0.1, 0.3]"), markdown_text("<b> [x](http://y) a|b"))
    inner_lr [0.1, 0.3] &lt;b> [x\](http\://y) a\|b
    """
    if isinstance(value, Markdown):
        return value
    text = _MARKS.sub(lambda mark: f"\\{mark[0]}", _line(value))
    return Markdown(re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;"))


def markdown_code(value: object) -> Markdown:
    """Any text, in one line, as code.

    >>> print(markdown_code("a`b"))
    `` a`b ``
    """
    text = _line(value)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return Markdown(f"{fence}{space}{text}{space}{fence}")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats get four decimals.

    >>> print(markdown_table(["model", "rmse"], [["metarec", 0.91234], ["ridge", 0.92]]))
    | model | rmse |
    | --- | --- |
    | metarec | 0.9123 |
    | ridge | 0.9200 |
    """
    lines = [columns, [Markdown("---")] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else markdown_text(value)


def _line(value: object) -> str:
    return printable(" ".join(str(value).split()))
