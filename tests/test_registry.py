"""Plug-ins by name: the built-ins, those of other packages, and the message for a wrong name."""

import importlib
import sys

import pytest

from metarec.bases import BASES, make_base
from metarec.errors import InputError
from metarec.fusion import NETWORKS
from metarec.fusion.stackers import STACKERS
from metarec.meta import ENGINES
from metarec.registry import Registry, suggest


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Installs a package as pip would: a module, and a dist-info with its entry points."""

    def install(points, code):
        (tmp_path / "their_plugin.py").write_text(code)
        info = tmp_path / "their_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    yield install
    sys.modules.pop("their_plugin", None)


THEIRS = """
from metarec.bases import Recommender
from pydantic import BaseModel


class Constant(Recommender):
    name = "constant"

    class Config(BaseModel):
        value: float = 3.0

    def fit(self, domain):
        return self

    def predict_queries(self, queries):
        import numpy as np
        return [np.full(len(query.items), self.config.value) for query in queries]
"""


@pytest.mark.parametrize(
    ("registry", "wrong", "kind", "near"),
    [
        (BASES, "item_knn", "base recommender", "item-knn"),
        (NETWORKS, "attntion", "fusion network", "attention"),
        (ENGINES, "learn2lern", "engine", "learn2learn"),
        (STACKERS, "best_single", "baseline", "best-single"),
    ],
)
def test_the_closest_name_is_suggested(registry, wrong, kind, near):
    for call in (registry.check, registry.get):
        with pytest.raises(InputError) as caught:
            call(wrong)
        assert str(caught.value).startswith(f'unknown {kind} "{wrong}"; did you mean "{near}"? Known: ')
        assert all(name in str(caught.value) for name in registry.names())


def test_no_name_is_suggested_if_none_is_close():
    assert suggest("zzzz", ["ridge", "mean"]) == "Known: mean, ridge"
    assert suggest("mean", []) == "Known: "


@pytest.mark.parametrize("registry", [BASES, NETWORKS, STACKERS], ids=lambda registry: registry.kind)
def test_every_built_in_can_be_imported(registry):
    for name in registry.names():
        assert registry.check(name) == name
        assert callable(registry.get(name))


def test_a_plug_in_is_imported_only_when_it_is_requested():
    registry = Registry("thing", "metarec.nothing", {"missing": "no_such_module:Thing", "path": "pathlib:Path"})
    assert registry.names() == ["missing", "path"]
    assert registry.check("missing") == "missing"
    assert registry.get("path").__name__ == "Path"
    with pytest.raises(ModuleNotFoundError):
        registry.get("missing")


def test_a_base_of_another_package_is_found_and_can_be_used_in_a_spec(plugin):
    from metarec.study.spec import StudySpec

    with pytest.raises(InputError):
        make_base("constant")
    plugin("[metarec.bases]\nconstant = their_plugin:Constant\n", THEIRS)
    assert BASES.names()[-1] == "constant"
    assert make_base("constant", value=4.5).config.value == 4.5
    assert StudySpec(bases=["bias", "constant"]).bases == {"bias": {}, "constant": {}}
    with pytest.raises(InputError, match='did you mean "constant"'):
        BASES.get("constnt")


def test_a_built_in_takes_precedence_over_a_plug_in_of_its_name(plugin):
    ours = BASES.get("bias")
    plugin("[metarec.bases]\nbias = their_plugin:Constant\n", THEIRS)
    assert BASES.names().count("bias") == 1
    assert BASES.get("bias") is ours
    assert "their_plugin" not in sys.modules


def test_a_plug_in_of_another_group_is_ignored(plugin):
    plugin("[metarec.engines]\nconstant = their_plugin:Constant\n", THEIRS)
    assert "constant" not in BASES.names()
    assert "constant" in ENGINES.names()


def test_defaults_do_not_depend_on_installed_packages(plugin):
    """Otherwise a study could not continue after the installation of a package."""
    from metarec.study.spec import StudySpec

    before = StudySpec()
    plugin("[metarec.bases]\nx = their_plugin:Constant\n[metarec.baselines]\nx = their_plugin:Constant\n", THEIRS)
    assert StudySpec() == before
    assert BASES.names() == [*BASES.builtins(), "x"]


def test_changed_code_of_a_plug_in_changes_its_cache_key(plugin, monkeypatch, tmp_path):
    from metarec import registry

    plugin("[metarec.bases]\nconstant = their_plugin:Constant\n", THEIRS)
    before = BASES.code_of(["bias", "constant", "unknown"])
    assert list(before) == ["constant"]
    (tmp_path / "their_plugin.py").write_text(THEIRS.replace("3.0", "2.0"))
    # As the next process sees it.
    registry._code_hash.cache_clear()
    assert BASES.code_of(["constant"]) != before


def test_an_option_that_a_plain_plug_in_does_not_have_is_refused(plugin):
    plugin("[metarec.bases]\nplain = their_plugin:Plain\n", "class Plain:\n    def __init__(self, least=1): ...\n")
    make_base("plain", least=2)
    with pytest.raises(InputError, match=r"bases\.plain: Plain has other options: .* 'most'"):
        make_base("plain", most=2)


NETWORK = """
from torch import nn
from metarec.fusion import FusionNetwork
from metarec.fusion.space import Parameter, RealRange

RANGE = Parameter(0.5, RealRange(low=0.1, high=1.0), "")


class Own(FusionNetwork):
    searched = {"width": RANGE}

    def __init__(self, width=0.5):
        super().__init__()

    def fuse(self, inputs): ...


class Common(Own):
    searched = {"inner_lr": RANGE}
"""


def test_a_study_searches_the_options_of_a_plug_in_network(plugin):
    from metarec.study.spec import StudySpec

    plugin(
        "[metarec.fusion]\nown = their_plugin:Own\ncommon = their_plugin:Common\nno-network = their_plugin:RANGE\n",
        NETWORK,
    )
    spec = StudySpec(fusion={"network": "own"}, search={"width": {"low": 0.2, "high": 0.6}})
    assert str(spec.space["width"]) == "0.2..0.6"
    assert spec.trial_zero["width"] == 0.5
    with pytest.raises(ValueError, match=r'network "common": searched names "inner_lr", which must be an option of'):
        StudySpec(fusion={"network": "common"})
    with pytest.raises(ValueError, match=r'network "no-network" must be a subclass of metarec\.fusion\.FusionNetwork'):
        StudySpec(fusion={"network": "no-network"})
    with pytest.raises(ValueError, match=r'unknown fusion network "onw"; did you mean "own"') as caught:
        StudySpec(fusion={"network": "onw"}, defaults={"inner_lr": "1e-3"})
    assert "defaults" not in str(caught.value)
