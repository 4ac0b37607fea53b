"""How the house is built: data flows one way, and every public name is there and says what it is."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import metarec

LIBRARY = Path(metarec.__file__).parent
ORDER = ("ratings", "bases", "episodes", "fusion", "meta", "transfer", "model", "study", "compare")
FILES = sorted(LIBRARY.rglob("*.py"))
MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(LIBRARY)], "metarec.") if not module.name.endswith("__main__")
)
# It talks to people.
MAY_PRINT = {LIBRARY / "study" / "__main__.py"}


def shown(path):
    return str(path.relative_to(LIBRARY))


def imports(path):
    """Every module of metarec that a file imports, anywhere in it, and every ``"module:attribute"`` that it names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}, line {node.lineno}: import by the full name"
            yield node.module
            # `from metarec.study import figures` imports a module.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"metarec(\.\w+)+:\w+", str(node.value)):
            yield node.value.partition(":")[0]


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_data_flows_one_way(path):
    place = path.relative_to(LIBRARY).parts
    folder = place[0] if len(place) > 1 else None
    assert folder is None or folder in ORDER, f"{folder} has no place in the order"
    allowed = ORDER[: ORDER.index(folder) + 1] if folder else ()
    if place == ("sklearn.py",):
        # People import it by its own name; nobody here does.
        allowed = ORDER
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "metarec" and len(parts) > 1 and parts[1] in ORDER:
            assert parts[1] in allowed, f"{shown(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_the_library_neither_prints_nor_silences(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("warnings.filterwarnings", "warnings.simplefilter", "filterwarnings", "simplefilter")
            assert called != "print" or path in MAY_PRINT, f"{shown(path)}, line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{shown(path)}, line {node.lineno}: a bare except"


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_there_and_say_what_they_are(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    package = hasattr(module, "__path__")
    public = getattr(module, "__all__", [])
    assert public or package, f"{name} does not say what is public"
    assert len(public) == len(set(public))
    for attribute in public:
        thing = getattr(module, attribute)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            # A class that inherits its docstring, or a tuple's generated one, says nothing of its own.
            assert vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__, f"{name}.{attribute}"
            assert not str(thing.__doc__).startswith(f"{attribute}("), f"{name}.{attribute}"
    if package and public:
        # What a package imports from inside it, it hands on.
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
