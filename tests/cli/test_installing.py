"""The wheel and the source release, installed where nothing of the checkout is in sight."""

import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(*command, cwd):
    # A checkout on this path would be found first.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    whole = [str(part) for part in command]
    ran = subprocess.run(whole, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def build(source, out, kind):
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    run(sys.executable, "-c", code, cwd=source)
    (made,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("RECORD")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the files that a release is made from."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("metarec", "studies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    return build(checkout, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """The programs of an environment with the wheel, and with the packages of this one but not with its metarec."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    own = Path(
        run(folder / "bin" / "python", "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
    )
    # A path in such a file is searched, but the files of this kind in it are not read: so the checkout is not found.
    (own / "packages.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder / "bin"


def test_the_package_comes_from_the_wheel(programs, tmp_path):
    place = Path(run(programs / "python", "-c", "import metarec; print(metarec.__file__)", cwd=tmp_path).strip())
    assert place.is_relative_to(programs.parent)


def test_the_specs_are_installed(programs, tmp_path):
    listed = [line.partition(":")[0] for line in run(programs / "metarec", "specs", cwd=tmp_path).splitlines()]
    assert listed == sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))


def test_a_study_runs(programs, tmp_path):
    small = ["--set", "bases=[bias, item-knn]", "--set", "baselines=[mean]", "--set", "training.epochs=2"]
    printed = run(programs / "metarec", "study", "--trials", "1", *small, cwd=tmp_path)
    assert "metarec" in printed
    assert (tmp_path / "mlruns" / "mlflow.db").is_file()


def test_the_source_release_makes_the_same_wheel(checkout, wheel, tmp_path):
    (tmp_path / "out").mkdir()
    with tarfile.open(build(checkout, tmp_path / "out", "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    (tmp_path / "again").mkdir()
    assert names_in(build(unpacked, tmp_path / "again", "wheel")) == names_in(wheel)
