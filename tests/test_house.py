"""The library neither prints nor silences warnings, and every public name exists and has a docstring."""

import ast
import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import metarec

LIBRARY = Path(metarec.__file__).parent
FILES = sorted(LIBRARY.rglob("*.py"))
MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(LIBRARY)], "metarec.") if not module.name.endswith("__main__")
)


def shown(path):
    return str(path.relative_to(LIBRARY))


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_the_library_neither_prints_nor_silences(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("warnings.filterwarnings", "warnings.simplefilter", "filterwarnings", "simplefilter")
            assert called != "print", f"{shown(path)}, line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{shown(path)}, line {node.lineno}: a bare except"


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_have_docstrings(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    package = hasattr(module, "__path__")
    public = getattr(module, "__all__", [])
    assert public or package, f"{name} does not say what is public"
    assert len(public) == len(set(public))
    for attribute in public:
        thing = getattr(module, attribute)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            # An inherited docstring, or a tuple's generated one, does not count.
            assert vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__, f"{name}.{attribute}"
            assert not str(thing.__doc__).startswith(f"{attribute}("), f"{name}.{attribute}"
    if package and public:
        # A package exports all its imports from inside it.
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        handed = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module.startswith(f"{name}.")
            for alias in node.names
        }
        assert handed <= set(public), f"{name}: {sorted(handed - set(public))} not in __all__"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    module = importlib.import_module(name)
    examples = doctest.testmod(module)
    assert examples.failed == 0
