"""The README and the pages of `docs/`, and the blocks of code that are in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = "README.md"
FIRST_HOUR = "docs/first-hour.md"
MODEL = "docs/model.md"
LISTS = "docs/lists.md"
JOBS = "docs/jobs.md"
LEARN2LEARN = "docs/integrations/learn2learn.md"

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / README, *sorted((ROOT / "docs").rglob("*.md")))
}


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        shown: the text block directly after it, its expected output; None if there is none.
    """

    page: str
    language: str
    code: str
    shown: str | None


def blocks_of(page: str) -> list[Block]:
    """All blocks of a page except those with the output of the block before."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", PAGES[page], re.MULTILINE | re.DOTALL)
    return [Block(page, language, code, shown or None) for language, code, shown in found]


def blocks(language: str, page: str | None = None) -> list[Block]:
    """The blocks in one language, of one page or of all."""
    return [block for name in ([page] if page else PAGES) for block in blocks_of(name) if block.language == language]


def commands(language: str, page: str | None = None) -> list[str]:
    """The lines of such blocks, comments left out and continued lines joined."""
    return [line for block in blocks(language, page) for line in lines_of(block)]


def lines_of(block: Block) -> list[str]:
    """The commands of one block, as above."""
    return [line for line in block.code.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)]


def missing_lines(shown: str, printed: str) -> list[str]:
    """The lines of a page that a program did not print, ignoring numbers and widths. `…` matches anything."""
    there = {_plain(line) for line in printed.splitlines()}
    return [line for line in shown.splitlines() if line.strip() != "…" and _plain(line) not in there]


def _plain(line: str) -> str:
    return re.sub(r"[\s─━*]+", " ", re.sub(r"[-+]?\d[\d.,]*(e-\d+)?", "#", line)).strip()
