"""Every benchmark reads its arguments: one that ignored them computed everything, for hours."""

import runpy
import sys
from pathlib import Path

import pytest

import benchmarks

PACKAGES = sorted(path.parent.name for path in Path(benchmarks.__path__[0]).glob("*/__main__.py"))


@pytest.mark.parametrize("name", PACKAGES)
def test_an_unknown_option_ends_the_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--no-such-option"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    assert ended.value.code == 2
    assert "--no-such-option" in capsys.readouterr().err
