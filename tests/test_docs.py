"""The pages of `docs/`: their Python runs, their specs load, what they show is printed, and the site is built."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from metarec.study.spec import load_spec
from tests.support.numbers import claims, number_digits, objections
from tests.support.pages import (
    FIRST_HOUR,
    LISTS,
    MODEL,
    PAGES,
    README,
    ROOT,
    Block,
    blocks,
    blocks_of,
    lines_of,
    missing_lines,
)
from tests.test_readme import OPEN_RUNS, RUN_BY_CI

EXAMPLE = ROOT / "examples" / "metarec-example"
PYTHON_PAGES = sorted({block.page for block in blocks("python")} - {README, FIRST_HOUR, MODEL, LISTS})
SLOW_PAGES = (
    "docs/engines.md",
    "docs/honest.md",
    "docs/integrations/lenskit.md",
    "docs/networks.md",
    "docs/python.md",
    "docs/reading.md",
    "docs/transfer.md",
)
RESULTS = [README, *(page for page in PAGES if page.startswith("docs/results/"))]


def file_of(block: Block) -> str | None:
    """The file name in the first line of a block."""
    named = re.match(r"# (\S+\.py)\n", block.code)
    return named[1] if named else None


def run(arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def test_every_block_is_of_a_kind_that_is_tested():
    kinds = {"python", "sh", "bash", "yaml", "toml", "diff", "text"}
    for page in PAGES:
        for block in blocks_of(page):
            assert block.language in kinds | ({""} if page == "docs/architecture.md" else set()), page
            if block.language not in ("python", "sh"):
                assert block.shown is None or block.language == "text", page


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow if page in SLOW_PAGES else ()) for page in PYTHON_PAGES]
)
def test_the_python_of_a_page_runs_and_prints_what_is_shown(page, tmp_path, monkeypatch, capfd):
    """The blocks run in order; a block with the name of an example's file must equal that file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    names = {}
    for number, block in enumerate(blocks("python", page)):
        name = file_of(block)
        if name is not None:
            assert block.code.partition("\n")[2].strip() in (EXAMPLE / name).read_text(encoding="utf-8")
        exec(compile(block.code, f"{page}, block {number}", "exec"), names)
        printed = capfd.readouterr().out
        if block.shown is None:
            assert not printed
        elif "…" in block.shown:
            assert not missing_lines(block.shown, printed)
        else:
            assert printed == block.shown


@pytest.mark.slow
def test_the_first_hour_can_be_followed_and_its_model_used(tmp_path):
    """The commands run in order in a new folder, without those of `.ci/run`."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for page in (FIRST_HOUR, MODEL):
        follow(page, tmp_path)
    assert OPEN_RUNS in PAGES[FIRST_HOUR]


@pytest.mark.slow
def test_the_page_of_lists_can_be_followed(tmp_path):
    (tmp_path / ".venv").symlink_to(sys.prefix)
    follow(LISTS, tmp_path)


def follow(page, folder):
    """The files of a page. Blocks of Python without a name are one program."""
    program = ""
    for block in blocks_of(page):
        if block.language == "python" and file_of(block):
            (folder / file_of(block)).write_text(block.code)
            continue
        if block.language == "python":
            program += block.code
            printed = run([".venv/bin/python", "-c", program], folder)
            assert not missing_lines(block.shown or "", printed), printed
            continue
        if block.language == "bash":
            # Of servers, which `test_readme.py` looks at.
            continue
        assert block.language == "sh"
        lines = [line for line in lines_of(block) if line not in RUN_BY_CI]
        printed = ""
        for line in lines:
            arguments = shlex.split(line)
            assert arguments[0] == ".venv/bin/python"
            printed += run(arguments, folder)
        assert not missing_lines(block.shown or "", printed), printed


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: yaml.safe_load(block.code)["name"])
def test_the_specs_of_the_pages_load(block, tmp_path, monkeypatch):
    """A folder with the example's package and its entry points, as if installed."""
    folder = tmp_path / "metarec_example-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: metarec-example\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(entry_points())
    (tmp_path / "spec.yaml").write_text(block.code)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert load_spec(str(tmp_path / "spec.yaml"), {}).name == yaml.safe_load(block.code)["name"]


def entry_points():
    """The entry points of the example, as an installed package has them."""
    text = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    return re.sub(
        r'\[project\.entry-points\."(\S+)"\]\n(\S+) = "(\S+)"', r"[\1]\n\2 = \3", text[text.index("[project.entry") :]
    )


def test_the_entry_points_of_the_pages_are_those_of_the_example():
    text = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    shown = blocks("toml")
    assert len(shown) == 3
    assert all(block.code in text for block in shown)


def test_a_line_that_is_not_printed_is_detected():
    printed = "trial 0  RMSE 0.25\n│ mean │  1.0 │ +1.0 % │\n"
    assert not missing_lines("…\n│ mean │ 0.9 │   -2.25 % │\n", printed)
    assert missing_lines("│ median │ 0.9 │ +1.0 % │\n", printed)


def test_every_page_is_in_the_navigation():
    # mkdocs' own tags are no part of this file.
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    pages = {page.removeprefix("docs/") for page in PAGES} - {README}
    assert set(re.findall(r"\S+\.md", navigation)) == pages


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install metarec[docs]")
def test_the_site_is_built_and_fetches_nothing(tmp_path):
    arguments = ["-m", "mkdocs", "build", "--strict", "--config-file", ROOT / "mkdocs.yml", "--site-dir", tmp_path]
    ended = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    html = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert len(html) >= len(PAGES) - 1
    for path, text in html.items():
        assert not re.findall(r"(?:\ssrc=|<link[^>]+href=)[\"']?(?:https?:)?//", text), path
        # A reference of a docstring that became no link.
        assert not re.findall(r":(?:class|func|meth|data|attr):<code>", text), path
    assert "MetaRecommenderFusion" in html[Path(tmp_path, "api", "fusion.html")]


@pytest.mark.parametrize("name", re.findall(r"`(test_\w+)(?:\.py)?`", PAGES["docs/honest.md"]))
def test_the_tests_that_a_page_names_exist(name):
    files = list((ROOT / "tests").rglob("test_*.py"))
    assert any(name == path.stem or f"def {name}(" in path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize("page", RESULTS)
def test_every_number_of_a_page_is_in_its_results_file(page):
    wrong = [objection for claim in claims(PAGES[page]) for objection in objections(claim)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", RESULTS)
def test_a_changed_digit_of_a_page_is_noticed(page):
    """Every digit of every number is changed. Few changes meet another number of the same entry."""
    lines = list(claims(PAGES[page]))
    changed = [
        claim._replace(line=claim.line[:place] + digit + claim.line[place + 1 :])
        for claim in lines
        for place in number_digits(claim.line)
        for digit in set("0123456789") - {claim.line[place]}
    ]
    unnoticed = [claim.line for claim in changed if not objections(claim)]
    assert len(unnoticed) <= 0.03 * len(changed), f"{len(unnoticed)} of {len(changed)}: {unnoticed[:5]}"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("The gain is 1.24 % [1, 2].", ""),
        ("**0.1235** after 10 ratings of 1,500 users, nDCG@10 above, [95 %], in `0.7.1`.", ""),
        ("A share of 12 %, in 123.5 ms, a list of 3.", ""),
        ("The gain is -1.24 %.", "-1.24 % is not in"),
        ("The gain is 1.25 %.", "1.25 % is not in"),
        ("It takes 124 ms.", "124 ms is not in"),
        ("It has 1,501 users.", "1,501 is not in"),
        ("A number in code is a number: `1.25`.", "1.25 is not in"),
        ("It is 1.24x faster.", "digits that are no number"),
        ("Half of .248", ".248 is not in"),
    ],
)
def test_a_wrong_number_is_named(line, wrong, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"10": {"gain": 1.2368, "low": 1, "high": 2, "t": 0.12345, "n": 1500, "a": [5, 5, 5]}}))
    (claim,) = claims(f"<!-- numbers: {file} 10 -->\n\n{line}")
    found = objections(claim)
    assert [objection[: len(wrong)] for objection in found] == ([wrong] if wrong else [])


def test_a_row_is_held_against_its_own_entry(tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"a": {"rmse": 0.5}, "b": {"rmse": 0.7}, "list": [{"set": "a", "rmse": 0.9}]}))
    table = "| model | rmse |\n|---|---|\n| `a` | 0.7 |\n| b | 0.7 |\n| c | 0.7 |"
    assert [bool(objections(claim)) for claim in claims(f"<!-- numbers: {file} {{model}}/{{column}} -->\n{table}")] == [
        True,
        False,
        True,
    ]
    table = "| set | rmse |\n|---|---|\n| a | 0.9 |\n| b | 0.9 |"
    marked = f"<!-- numbers: {file} list/set={{set}} -->\n{table}"
    assert [bool(objections(claim)) for claim in claims(marked)] == [False, True]


def test_a_number_without_a_file_is_refused():
    (claim,) = claims("It is 2 % better.")
    assert objections(claim) == ["no file is named for: It is 2 % better."]


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {README}))
def test_a_page_begins_with_what_it_is_for(page):
    assert re.match(r"# .+\n\nThis page ", PAGES[page])


AVOIDED = ("whoever", "whom", "said", "told", "of which", "once more", "known users")


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_a_page_avoids_words_that_make_sentences_hard_to_read(page):
    """Outside code and output."""
    text = re.sub(
        r"^```.*?^```$|`[^`\n]*`", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    assert not re.findall(rf"\b(?:{'|'.join(AVOIDED)})\b", text, re.IGNORECASE)


def test_the_architecture_is_short():
    assert len(PAGES["docs/architecture.md"].encode()) < 15 * 1024
