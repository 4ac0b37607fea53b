"""Slow imports happen on use."""

import builtins
import subprocess
import sys

import pytest

from metarec.meta import make_engine


@pytest.mark.slow
def test_learn2learn_is_imported_on_use_and_prints_nothing():
    code = """
import sys, metarec.meta
from metarec.fusion import MetaRecommenderFusion
print([name for name in ('learn2learn', 'higher', 'gym') if name in sys.modules])
metarec.meta.make_engine('learn2learn', MetaRecommenderFusion(2, 2), inner_lr=0.1, inner_steps=1)
print('learn2learn' in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.split("\n") == ["[]", "True", ""]
    assert printed.stderr == ""


@pytest.mark.parametrize(("engine", "package"), [("learn2learn", "learn2learn.algorithms"), ("higher", "higher")])
def test_the_error_of_a_missing_package_names_the_command(engine, package, monkeypatch, make_batch, make_network):
    real = builtins.__import__

    def without(name, *args, **options):
        if name == package:
            raise ModuleNotFoundError(f"No module named '{package}'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=f"pip install {engine}=="):
        make_engine(engine, make_network(make_batch()), inner_lr=0.1, inner_steps=1)
