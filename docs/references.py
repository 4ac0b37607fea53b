"""A hook of mkdocs: what docstrings refer to as :class:`name`, in Sphinx's way, becomes a link where there is one."""

from __future__ import annotations

import re
from typing import Any

ROLE = re.compile(r":(?:class|func|meth|data|attr|mod):<code>(~?)([\w.]+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """A link that mkdocs-autorefs resolves, or leaves as plain code where the name has no page."""
    return ROLE.sub(_linked, html)


def _linked(found: re.Match[str]) -> str:
    short, name = found.groups()
    shown = name.rpartition(".")[2] if short else name
    return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'
