"""Everything flows one way: a folder of the package imports only from the folders before it."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "metarec"
ORDER = ["ratings", "bases", "episodes", "fusion", "meta", "transfer", "model", "study", "compare"]
# `preloaded` names modules of folders, as text, for a process of its own; nobody imports it.
ABOVE_ALL = {"errors", "importing", "preloaded", "registry", "threads", "workers"}
# What people import by its own name: nobody here does. The package itself has `load`, which imports when it is called.
BELOW_ALL = {"__init__", "lenskit", "predict", "sklearn"}


def imported(path):
    """The first names below `metarec` that a file imports, wherever in it, or names as ``"module:attribute"``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names = [f"{node.module}.{name}" for name in names]
        if isinstance(node, ast.Constant) and re.fullmatch(r"metarec(\.\w+)+:\w+", str(node.value)):
            names = [node.value.partition(":")[0]]
        for name in names:
            root, _, rest = name.partition(".")
            if root == "metarec" and rest:
                yield rest.split(".")[0]


def test_the_order_names_every_folder():
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there <= set(ORDER)
    assert {path.stem for path in PACKAGE.glob("*.py")} == ABOVE_ALL | BELOW_ALL


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_comes_before_it(path):
    folder = path.relative_to(PACKAGE).parts[0]
    before = ORDER[: ORDER.index(folder) + 1] if folder in ORDER else []
    if path.stem in BELOW_ALL and path.parent == PACKAGE:
        before = ORDER
    assert set(imported(path)) - ABOVE_ALL <= set(before)


def test_a_planted_import_is_seen(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text(
        "def late():\n    from metarec import study\n    import metarec.meta.trainer\n"
        "    x = 'metarec.compare.job:run'\n"
    )
    assert list(imported(planted)) == ["study", "meta", "compare"]
