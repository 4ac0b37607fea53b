"""What the pages of reports share: style, tables and pictures, in one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from metarec.errors import printable

__all__ = ["html_page"]

STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #2b2f36; max-width: 860px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.7em; margin-bottom: 0.2em } h2 { margin-top: 2em; border-bottom: 2px solid #0072b2 }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px } caption { text-align: left; font-weight: bold }
th, td { padding: 3px 12px 3px 0; border-bottom: 1px solid #e6e8eb; text-align: left; vertical-align: top }
td.n { white-space: nowrap } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
tr.ours { font-weight: bold }
code, pre { background: #f4f5f7; padding: 1px 4px; border-radius: 3px; font-size: 13px }
pre { padding: 10px; white-space: pre-wrap; overflow-wrap: anywhere }
figure { margin: 1.5em 0 } figure img { width: 100%; max-width: 800px; height: auto } figcaption { color: #60656e }
.quiet { color: #60656e } dt { font-weight: bold }
@media print {
  body { margin: 0; max-width: none; font-size: 11px } h2 { break-after: avoid }
  figure, tr { break-inside: avoid } details { display: none } figure img { max-width: 17cm }
}
</style>"""

TABLE = """{% macro table(caption, t) %}{% if t.rows %}<table><caption>{{ caption }}</caption><tr>
{% for cell in t.head %}<th{% if not loop.first %} class="n"{% endif %}>{{ cell }}</th>{% endfor %}</tr>
{% for row in t.rows %}<tr>{% for cell in row %}
<td{% if not loop.first %} class="n"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}{% endmacro %}"""

PICTURES = (
    '{% for p in chosen %}<figure><img alt="{{ p.title }}" src="data:image/png;base64,{{ p.data }}">'
    "<figcaption>{{ p.title }}. {{ p.caption }}</figcaption></figure>\n{% endfor %}"
)


def html_page(template: str, pictures: Iterable[Mapping[str, str]], folder: Path, **values: Any) -> str:
    """The page of a Jinja template, which may use ``style``, ``table(caption, t)`` and ``pictures(*starts)``.

    Args:
        pictures: the file, title and caption of each. A template chooses them by how their files' names begin.
        folder: of the pictures' files; a missing picture is left out.
    """
    environment = Environment(autoescape=True, trim_blocks=True, finalize=_shown)
    environment.filters["zip"] = zip
    inner = environment.from_string(PICTURES)

    def chosen(*starts: str) -> Markup:
        some = [
            {**one, "data": base64.b64encode((folder / one["file"]).read_bytes()).decode()}
            for one in pictures
            if one["file"].startswith(starts) and _is_picture(folder, one["file"])
        ]
        # The inner template has escaped the text already.
        return Markup(inner.render(chosen=some))

    return environment.from_string(TABLE + template).render(style=Markup(STYLE), pictures=chosen, **values)


def _is_picture(folder: Path, file: str) -> bool:
    """Whether a file of this name is in the folder itself. A page has no files of elsewhere, also not by a link."""
    path = folder / file
    return path.parent == folder and path.is_file() and not path.is_symlink()


def _shown(value: object) -> object:
    """What the page shows of a value: text without control characters; the template escapes HTML."""
    return printable(value, keep="\n") if isinstance(value, str) and not hasattr(value, "__html__") else value
