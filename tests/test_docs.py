"""The pages of `docs/`: their Python runs, their specs load, what they show is printed, and the site is built."""

import importlib
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
from tests.support.pages import (
    FIRST_HOUR,
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
PYTHON_PAGES = sorted({block.page for block in blocks("python")} - {README, FIRST_HOUR, MODEL})
SLOW_PAGES = ("docs/networks.md", "docs/results.md")


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
