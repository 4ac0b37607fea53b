"""Descriptions show text from outside as it is: it becomes no link, no picture, no HTML and no other cell."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from metarec.errors import printable
from metarec.tracking import Markdown, markdown_code, markdown_table, markdown_text

# What gives Markdown a meaning is frequent, so that it meets itself.
TEXT = st.text(st.sampled_from("ab1 \\`*_[](){}<>|&;~#!:/.=-+\n\"'\x1b\u202e") | st.characters(), max_size=40)
EVIL = [
    "<img src=x onerror=alert(1)>",
    "](http://evil.example)",
    "[click](http://evil.example)",
    "[click] (http://evil.example)",
    "![x](http://evil.example/x.png)",
    "<http://evil.example>",
    "http://evil.example www.evil.example",
    "a | b \\| c",
    "a\\",
    "`code` **bold** _it_ ~~out~~",
    "&lt;b&gt; &#60;",
    "\n\n# head\n\n- list",
    "[a]: http://evil.example",
    "\x1b[31m\u202e\u200b",
]


def rendered(text):
    """The tokens of a text, with tables and crossed out text as MLflow has them, and all its plain text."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    flat = [inner for token in tokens for inner in (token, *(token.children or ()))]
    return {token.type for token in flat}, flat


def examples(function):
    for text in EVIL:
        function = example(text)(function)
    return function


def as_shown(text):
    return printable(" ".join(text.split()))


@settings(deadline=None)
@given(text=TEXT)
@examples
def test_text_is_shown_as_it_is(text):
    kinds, flat = rendered(f"x {markdown_text(text)} y")
    assert kinds <= {"paragraph_open", "inline", "text", "paragraph_close"}
    assert " ".join("".join(one.content for one in flat if one.type == "text").split()) == as_shown(f"x {text} y")
    assert "://" not in markdown_text(text).replace("\\://", "")


@settings(deadline=None)
@given(text=TEXT, other=TEXT)
@example(text="", other="__0__")
def test_a_cell_stays_a_cell(text, other):
    kinds, flat = rendered(markdown_table([text, "b"], [[other, 0.5], [text, Markdown("**c**")]]))
    assert kinds - {"strong_open", "strong_close"} <= {
        *("table_open", "thead_open", "tr_open", "th_open", "inline", "text", "th_close", "tr_close", "thead_close"),
        *("tbody_open", "td_open", "td_close", "tbody_close", "table_close"),
    }
    cells = [
        "".join(part.content for part in one.children if part.type == "text") for one in flat if one.type == "inline"
    ]
    assert [" ".join(cell.split()) for cell in cells] == [
        as_shown(text),
        "b",
        as_shown(other),
        "0.5000",
        as_shown(text),
        "c",
    ]


@settings(deadline=None)
@given(text=TEXT)
@examples
def test_code_is_shown_as_it_is(text):
    kinds, flat = rendered(f"x {markdown_code('a' + text)} y")
    (code,) = [one for one in flat if one.type == "code_inline"]
    assert code.content.strip() == as_shown("a" + text)
    assert kinds == {"paragraph_open", "inline", "text", "code_inline", "paragraph_close"}


def test_plain_text_stays_plain():
    for text in ("movies", "inner_lr", "+1.2 % [0.3, 2.1]", "Books & Movies", "1..5, 20 users", "a (b)", "it's 95 %"):
        assert markdown_text(text) == text
