"""The pinned versions satisfy the package's requirements."""

import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def requirements(text):
    # What follows a blank and two dashes is an option for pip.
    lines = (line.split(" --")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "%"))]


CONFIG = configparser.ConfigParser(interpolation=None)
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")
REQUIREMENTS = [
    requirement
    for text in (CONFIG["options"]["install_requires"], *CONFIG["options.extras_require"].values())
    for requirement in requirements(text)
]
PINS = {pin.name.lower(): pin for pin in requirements((ROOT / "requirements.txt").read_text(encoding="utf-8"))}


def test_every_pin_is_one_version():
    assert len(PINS) > 50
    for pin in PINS.values():
        (only,) = pin.specifier
        assert only.operator == "==", pin
        assert "*" not in only.version, pin


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_requirement_is_pinned_within_its_range(requirement):
    (pinned,) = PINS[requirement.name.lower()].specifier
    assert requirement.specifier.contains(pinned.version), f"{requirement} but {pinned}"


def test_the_extra_for_developers_holds_that_for_tests():
    from setuptools.config.setupcfg import read_configuration

    extras = read_configuration(ROOT / "setup.cfg")["options"]["extras_require"]
    assert set(extras["test"]) < set(extras["dev"])
