"""Whatever a spec's file holds: a spec or one line, within limits of size and depth."""

import os
import time

import pytest

from metarec.errors import InputError
from metarec.study.spec import load_spec
from metarec.study.spec_files import find_spec

GOOD = "trials: 3\n"
MOST = "METAREC_MAX_SPEC_BYTES"


@pytest.fixture
def refused(tmp_path):
    def message_of(content, *assignments):
        path = tmp_path / "spec.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        begun = time.perf_counter()
        with pytest.raises(InputError) as caught:
            load_spec(str(path), {}, assignments)
        assert time.perf_counter() - begun < 5
        message = str(caught.value)
        assert message.isprintable()
        assert len(message) < 600
        assert message.startswith(f"{path}: " if not assignments else ("--set", f"{path}: "))
        return message

    return message_of


def laughs(levels):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


def test_a_file_above_the_limit(refused, monkeypatch):
    assert f"more than {MOST}=131,072 bytes" in refused("description: " + "x" * (1 << 20))
    monkeypatch.setenv(MOST, "20")
    assert f"more than {MOST}=20 bytes" in refused("description: a long text\n")
    assert "set that environment variable to more" in refused("description: a long text\n")


def test_aliases_count_as_what_they_stand_for(refused):
    assert f"the spec without its aliases has more than {MOST}" in refused(
        "training: {epochs: {" + laughs(9).replace("\n", ", ") + "}}"
    )
    assert "stands inside itself" in refused("a: &x [*x]\n")
    assert "spec.yaml" in refused("a: &x {<<: *x}\n")


def test_aliases_that_expand_to_little_are_fine(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("trials: &few 3\nworkers: *few\ntraining: &t {epochs: 2}\n")
    assert load_spec(str(path), {}).workers == 3


@pytest.mark.parametrize("depth", [40, 2000, 30_000])
def test_a_spec_that_is_too_deep(refused, depth):
    assert "at most 30 levels deep" in refused("[" * depth)
    assert "at most 30 levels deep" in refused("{a: " * depth)


@pytest.mark.parametrize(
    "value",
    ["9" * 5000, "0x" + "f" * 5000, "1:" * 50_000 + "1", "1" * 200 + ".5", "+" + "9" * 101, "1_" * 300],
)
def test_numbers_of_many_digits(refused, value):
    assert "a number has at most 100 digits" in refused(f"trials: {value}\n")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("trials: 3\ntrials: 4\n", 'line 2: the key "trials" is there twice'),
        ("training: {epochs: 3, epochs: 4}\n", 'line 1: the key "epochs" is there twice'),
        ("trials: !!int x\n", "tags"),
        ("trials: !!bool x\n", "tags"),
        ("trials: !!timestamp x\n", "tags"),
        ("trials: !!python/object/apply:os.system [ls]\n", "tags"),
        ("description: 2001-99-99\n", "not a YAML file"),
        ("description: 2001-01-01T99:00:00\n", "not a YAML file"),
        ("? [1]\n: 2\n", "not a YAML file"),
        ("- =\n", "not a YAML file"),
        ("a: b: c\n", "not a YAML file"),
        (b"\xff\xfe\x00", "not a YAML file"),
        ("a: \x00\n", "not a YAML file"),
        (b"a: \xed\xa0\x80\n", "not a YAML file"),
        ("", "must be a mapping"),
        ("1: 2\n", "Keys should be strings"),
        ("{1: 2, 1.5: 3}\n", "Keys should be strings"),
        ("null: 2\n", "Keys should be strings"),
        ("trials: 3\n---\ntrials: 4\n", "not a YAML file"),
        ("defaults: {outer_lr: .inf}\n", "outer_lr"),
        ("defaults: {batch_size: .inf}\n", "batch_size"),
        ("search: {outer_lr: {low: .nan, high: 1}}\n", "finite"),
        ("search: {outer_lr: {low: 0.001, high: .inf}}\n", "finite"),
        ("seed: 99999999999999999999\n", "seed"),
        ("trials: 99999999999999999999999999999\n", "trials"),
        ("workers: 99999999999999999999999999999\n", "workers"),
        ("timeout: .nan\n", "timeout"),
        ("bases: [[a]]\n", "bases"),
        ("name: " + "x" * 10_000, "name"),
    ],
)
def test_a_wrong_file_is_one_line(refused, content, part):
    assert part in refused(content)


def test_assignments_have_the_same_limits(refused):
    assert "--set trials: " in refused(GOOD, "trials=" + "9" * 5000)
    assert "--set trials: " in refused(GOOD, "trials=" + "[" * 5000)
    assert "--set trials: " in refused(GOOD, "trials={a: 1, a: 2}")
    assert "levels deep" in refused(GOOD, "training." + "a." * 5000 + "b=1")
    assert "unknown key" in refused(GOOD, ".=1")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    path = tmp_path / "spec.yaml"
    os.mkfifo(path)
    for make, part in [
        (lambda: None, "is a named pipe"),
        (lambda: path.symlink_to("/dev/zero"), "is a device"),
        (lambda: path.symlink_to("spec.yaml"), "there is no such spec file"),
        (lambda: path.symlink_to("nothing"), "there is no such spec file"),
        (path.mkdir, "is a folder"),
    ]:
        make()
        with pytest.raises(InputError, match=part):
            load_spec(str(path), {})
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".yaml", "a\0b", "a\0b.yaml", "", "no\nsuch"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(InputError) as caught:
        find_spec(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
