"""`metarec COMMAND`: its commands, their defaults, the keys of a spec, and a study that is only checked."""

import os
import sys

import pytest
import yaml
from typer.main import get_command

import metarec
from metarec import __main__ as umbrella
from metarec.cli.specs import spec_keys
from metarec.cli.study_jobs import app as further
from metarec.study.spec import StudySpec, load_spec
from metarec.study.transfer_spec import TransferSpec

COMMANDS = get_command(umbrella.app).commands
ALL = {**COMMANDS, **get_command(further).commands}


@pytest.fixture
def called(monkeypatch, capsys):
    """Runs `metarec` with these arguments; returns its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["metarec", *arguments])
        code = 0
        try:
            umbrella.main()
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_commands():
    assert set(COMMANDS) == {"study", "compare", "predict", "serve", "specs", "keys"}


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_without_a_command_it_lists_them(called, arguments):
    code, out, _ = called(*arguments)
    assert code == 0
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert "--install-completion" in out


def test_the_version(called):
    assert called("--version") == (0, f"metarec {metarec.__version__}\n", "")


def test_an_unknown_command_is_one_line_with_the_closest(called):
    code, out, err = called("stduy")
    assert (code, out) == (2, "")
    assert err.startswith("error: No such command 'stduy'")
    assert "study" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_by_both_names(called, name):
    words = [name] if name in COMMANDS else ["study", name]
    for option in ("-h", "--help"):
        code, out, _ = called(*words, option)
        assert code == 0
        assert out.startswith(f"Usage: metarec {' '.join(words)} ")


@pytest.mark.parametrize("name", ALL)
def test_help_has_the_default_of_every_option(name):
    command = ALL[name]
    context = command.make_context(name, ["--help"], resilient_parsing=True)
    for parameter in command.get_params(context):
        if parameter.name != "help":
            _, text = parameter.get_help_record(context)
            assert "default: " in text or "required" in text, parameter.name


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("metarec st", {"study"}),
        ("metarec study --tr", {"--trials", "--tracking-uri"}),
        ("metarec study worker --st", {"--study-name", "--storage"}),
    ],
)
def test_the_shell_completes(called, monkeypatch, words, found):
    monkeypatch.setenv("_METAREC_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    code, out, _ = called()
    assert code == 0
    assert set(out.split()) == found


def test_the_specs_are_listed(called, tmp_path, monkeypatch):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "mine.yaml").write_text("name: mine\ndescription: My own one.\n")
    (tmp_path / "studies" / "wrong.yaml").write_text("nam: mine\n")
    monkeypatch.chdir(tmp_path)
    code, out, _ = called("specs")
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert code == 0
    assert {"cold-start", "quickstart", "ranking", "transfer"} <= set(lines)
    assert all(lines.values())
    assert lines["mine"] == "My own one."
    assert lines["wrong"].startswith('cannot be read: studies/wrong.yaml: unknown key "nam"; did you mean "name"?')


def fields_of(kind, prefix=""):
    """The keys of a model, also of the models in it."""
    for name, field in kind.model_fields.items():
        yield f"{prefix}{name}"
        parts = [part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if part is not None]
        for part in parts:
            # A choice among networks is a value.
            if hasattr(part, "model_fields") and part.__name__ != "Choice":
                yield from fields_of(part, f"{prefix}{name}.")


def test_every_key_is_listed_with_its_default_and_a_meaning(called):
    _, out, _ = called("keys")
    listed = {key.name: key for key in spec_keys()}
    assert list(listed) == list(fields_of(StudySpec))
    assert out.splitlines() == [str(key) for key in listed.values()]
    usual = StudySpec(transfer=TransferSpec()).model_dump(mode="json")
    for key in listed.values():
        assert key.meaning.endswith("."), key
        assert key.meaning[0] in "`" or key.meaning[0].isupper(), key
    defaults = {name: yaml.safe_load(key.default.split(", in ranking")[0]) for name, key in listed.items()}
    assert defaults["episodes"] is None
    assert defaults["episodes.shots"] == usual["episodes"]["shots"]
    assert defaults["transfer.target_users"] == usual["transfer"]["target_users"]
    assert defaults["bases"] == list(usual["bases"])
    assert f"in ranking {StudySpec(task='ranking').baselines}".replace("'", '"') in listed["baselines"].default


def test_a_dry_run_prints_the_whole_spec_and_writes_nothing(called, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = str(place / "movies.csv")
    umask = os.umask(0o022)
    code, out, err = called(
        "study", "cold-start", "--data", f"films={data}", "--set", "episodes.shots=3", "--trials", "7", "--dry-run"
    )
    assert os.umask(umask) == 0o022
    assert code == 0
    assert "scale 0.5..5 inferred" in err
    assert not list(tmp_path.iterdir())
    written = yaml.safe_load(out)
    assert list(written) == list(StudySpec.model_fields)
    assert (written["target"], written["task"], written["trials"], written["domains"]) == (
        "films",
        "rating",
        7,
        {"films": data},
    )
    (tmp_path / "again.yaml").write_text(out)
    assert load_spec("again.yaml", {}).as_yaml() == out


def test_a_dry_run_finds_what_a_study_would(called, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", f"films={place / 'movies.csv'}", "--set", "episodes.shots=100", "--dry-run"]
    code, out, err = called("study", *arguments)
    assert (code, out) == (2, "")
    assert "0 of 60 users have the 105 ratings" in err
    assert not list(tmp_path.iterdir())
