"""What is slow to import is imported when it is asked for."""

import builtins
import subprocess
import sys

import pytest

from metarec.meta import make_engine


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_no_engine_is_imported_before_it_is_asked_for():
    said = run("import sys, metarec.meta; print([n for n in ('learn2learn', 'higher', 'gym') if n in sys.modules])")
    assert said.stdout.strip() == "[]"


def test_the_learn2learn_engine_prints_nothing(tmp_path):
    said = run(
        "from metarec.meta import make_engine\n"
        "from metarec.fusion import MetaRecommenderFusion\n"
        "make_engine('learn2learn', MetaRecommenderFusion(2, 2), inner_lr=0.1, inner_steps=1)"
    )
    assert (said.stdout, said.stderr) == ("", "")


@pytest.mark.parametrize(("engine", "package"), [("learn2learn", "learn2learn.algorithms"), ("higher", "higher")])
def test_a_missing_package_says_how_to_install_it(engine, package, monkeypatch, make_batch, make_network):
    real = builtins.__import__

    def without(name, *args, **options):
        if name == package:
            raise ModuleNotFoundError(f"No module named '{package}'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=f"pip install {engine}=="):
        make_engine(engine, make_network(make_batch()), inner_lr=0.1, inner_steps=1)
