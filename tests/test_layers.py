"""A folder imports only from the folders before it, and only public names."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "metarec"

ORDER = [
    "ratings",
    "bases",
    "episodes",
    "fusion",
    "meta",
    "model",
    "evaluation",
    "transfer",
    "tracking",
    "search",
    "study",
    "compare",
    "report",
    "cli",
    "integrations",
]
"""The folders, from the tables of ratings to the commands. compare stands beside study, which does not import it."""

ABOVE_ALL = {
    *("cells", "config", "errors", "files", "importing", "plain"),
    *("preloaded", "registry", "stores", "threads", "workers"),
}
"""What every folder may import. `preloaded` names modules of folders, as text, for a process of its own."""

BELOW_ALL = {"__init__", "__main__", "lenskit", "predict", "serve", "sklearn"}
"""Names that people import or run. The package itself has `load`, which imports when it is called."""

MOST_FILES = 13
"""Python files in one folder, ``__init__`` among them, its subfolders and the names of `BELOW_ALL` aside."""


def names_in(path):
    """Everything of metarec that a file imports, wherever in it, or names as ``"module:attribute"``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Constant) and re.fullmatch(r"metarec(\.\w+)+:\w+", str(node.value)):
            names = [node.value.partition(":")[0]]
        yield from (name for name in names if name.startswith("metarec."))


def imported(path):
    """The first names below `metarec` that a file imports."""
    for name in names_in(path):
        yield name.split(".")[1]


def foreign_privates(path, package):
    """Private modules and names that a file imports from outside the folder that they are private to."""
    for name in names_in(path):
        parts = name.split(".")
        private = next((place for place, part in enumerate(parts) if re.match(r"_[a-z]", part)), None)
        if private is not None:
            owner = package.joinpath(*parts[1:private])
            # A name of a public module is private to that module.
            inside = owner.with_suffix(".py") == path if owner.with_suffix(".py").exists() else owner in path.parents
            if not inside:
                yield name


FILES = sorted(PACKAGE.rglob("*.py"))


def shown(path):
    return str(path.relative_to(PACKAGE))


def test_the_order_names_every_folder():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - ABOVE_ALL == set(ORDER)
    assert {path.stem for path in PACKAGE.glob("*.py")} | folders - set(ORDER) == ABOVE_ALL | BELOW_ALL


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_file_imports_only_what_comes_before_it(path):
    folder = path.relative_to(PACKAGE).parts[0]
    before = ORDER[: ORDER.index(folder) + 1] if folder in ORDER else []
    if (path.stem in BELOW_ALL and path.parent == PACKAGE) or path.stem == "__main__":
        before = ORDER
    assert set(imported(path)) - ABOVE_ALL <= set(before)


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_file_imports_nothing_that_is_private_to_another_folder(path):
    assert list(foreign_privates(path, PACKAGE)) == []


@pytest.mark.parametrize("package", ["metarec", "benchmarks", "tests"])
def test_no_folder_has_too_many_files(package):
    root = PACKAGE.parent / package
    counts = {
        str(folder.relative_to(root)): sum(path.stem not in BELOW_ALL - {"__init__"} for path in folder.glob("*.py"))
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]
    }
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_study_and_compare_do_not_import_each_other():
    for one, other in (("study", "compare"), ("compare", "study")):
        for path in (PACKAGE / one).rglob("*.py"):
            assert other not in set(imported(path)), path


def test_a_planted_import_is_detected(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text(
        "def late():\n    from metarec import study\n    import metarec.meta.trainer\n"
        "    x = 'metarec.compare.job:run'\n"
    )
    assert list(imported(planted)) == ["study", "meta", "compare"]


def test_a_planted_private_import_is_detected(tmp_path):
    package = tmp_path / "metarec"
    planted = package / "study" / "planted.py"
    planted.parent.mkdir(parents=True)
    planted.write_text(
        "from metarec.meta._base import MetaLearner\nfrom metarec.study._own import x\n"
        "from metarec.study.networks._objective import y\nfrom metarec import __version__\n"
    )
    found = ["metarec.meta._base.MetaLearner", "metarec.study.networks._objective.y"]
    assert list(foreign_privates(planted, package)) == found
