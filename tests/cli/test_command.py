"""The command: wrong input is one line with the cure and exit code 2, and nothing is written."""

import gzip
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from metarec.cli import study as command
from metarec.workers import WorkerEnded

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "pandas", "numpy", "mlflow", "optuna", "pydantic", "sklearn", "lenskit", "learn2learn", "lightgbm"}
OPTIONS = (
    *("--data", "--target", "--trials", "--workers", "--seed", "--timeout", "--out", "--tracking-uri", "--storage"),
    *("--study-name", "--json", "--set"),
)


def ratings(*, users=15, items=20, seed=0):
    rng = np.random.default_rng(seed)
    rows = ["user,item,rating"]
    rows += [f"u{user},i{item},{rng.integers(1, 6)}" for user in range(users) for item in range(items)]
    return "\n".join(rows) + "\n"


GOOD = ratings()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with one good file of ratings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.csv").write_text(GOOD)
    return tmp_path


@pytest.fixture
def refused(here, monkeypatch, capsys):
    """Runs the command in this process and returns its error line."""

    def run(*arguments, out=None):
        before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
        monkeypatch.setattr(sys, "argv", ["study", *map(str, arguments), "--out", out or "runs"])
        with pytest.raises(SystemExit) as ended:
            command.main()
        printed = capsys.readouterr()
        assert ended.value.code == 2, printed.err
        assert printed.out == ""
        assert re.fullmatch(r"error: [^\n]+\n", printed.err), printed.err
        assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before
        return printed.err

    return run


def test_the_good_file_is_good(here, monkeypatch):
    # Otherwise the errors below could have another reason.
    from metarec.study import protocols as stages

    began = []
    monkeypatch.setattr(sys, "argv", ["study", "--data", "m=good.csv", "--out", "runs"])
    monkeypatch.setattr(stages, "build_episodes", lambda *args, **kwargs: began.append(args) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.main()
    assert began


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", None, ["no such file or folder", "check the path"]),
        ("a.csv", "", ["the file is empty", "is needed"]),
        ("a.csv", "user,item,rating\n", ["has a header but no rows", "give it some"]),
        ("a.csv", GOOD.replace(",", ":"), ["line 1", "one column only"]),
        ("a.csv", GOOD.replace("item", "thing"), ["no column for the item", "columns.item=NAME"]),
        ("a.csv", GOOD + "u1,x1,five\n", ["line 302", 'column "rating"', 'is "five"', "correct it"]),
        ("a.csv", GOOD + "u1,x1,NaN\n", ["line 302", "must be a finite number", "NaN"]),
        ("a.csv", GOOD + "u1,x1,inf\n", ["line 302", "must be a finite number", "inf"]),
        ("a.csv", ratings(users=1), ["only one user", "give the ratings of more users"]),
        ("a.csv", ratings(items=8), ["0 of 15 users", "needs", "lower episodes.shots"]),
        ("a.csv", ratings(users=4), ["4 of 4 users", "at least"]),
        ("a.csv", bytes(range(256)), ["not text", "export"]),
        ("a.csv", b"PAR1" + bytes(50), ["parquet file under another name", "name it .parquet"]),
        ("a.csv.gz", gzip.compress(GOOD.encode(), mtime=0)[:-30], ["ends too early", "copy or download it again"]),
        ("a.csv.gz", GOOD.encode(), ["not compressed with gzip", "rename it"]),
        ("a.parquet", b"PAR1" + bytes(50), ["not a parquet file", "write it again"]),
        ("a.ods", b"PK\x03\x04", ["unknown kind of file", ".csv"]),
    ],
)
def test_a_bad_file(here, refused, name, content, parts):
    if content is not None:
        (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused("--data", f"movies={name}")
    # A file is named, or, where its content is sound but too little, the domain that it makes.
    assert name in line or 'domain "movies"' in line
    assert all(part in line for part in parts), line


def test_events_are_no_ratings(here, refused):
    (here / "a.csv").write_text(GOOD.replace("rating", "weight"))
    line = refused("--data", "movies=a.csv", "--task", "rating")
    assert 'domain "movies" has no ratings, only events; use --task ranking' in line
    line = refused("cold-start", "--data", "movies=a.csv")
    assert 'domain "movies" has only events, so that the task is ranking, but unknown ranking base "bias"' in line
    assert "use the spec ranking" in line


def events(*, users=15, items=20, less=0, weight="1"):
    """Every user chooses all items but `less` of them, each user others."""
    rows = ["user,item,weight"]
    for user in range(users):
        rows += [f"u{user},i{(user + place) % items},{weight}" for place in range(items - less)]
    return "\n".join(rows) + "\n"


LOG = events(less=3, weight="view").replace("weight", "event")


@pytest.mark.parametrize(
    ("content", "arguments", "parts"),
    [
        (events(less=3), ["--task", "rating"], ["has no ratings, only events; use --task ranking"]),
        *(
            (events(less=3) + f"u1,x1,{weight}\n", [], ["line 257", "the weight", rule, "correct it"])
            for weight, rule in [
                ("-1", "must be positive but is -1"),
                ("0", "must be positive but is 0"),
                ("NaN", 'must be a finite number but is "NaN"'),
                ("inf", 'must be a finite number but is "inf"'),
                ("many", 'must be a finite number but is "many"'),
            ]
        ),
        (events(items=1), [], ['domain "shop": a ranking needs at least two items but has 1']),
        (events(items=6), [], ["0 of 15 users have the 15 items", "10 shots + 5 queries", "the most active has 6"]),
        (events(less=3), ["episodes.shots=17"], ["0 of 15 users have the 22 items", "lower episodes.shots"]),
        (events(), [], ["each of the 15 users with an episode has all 20 items", "give the events of more items"]),
        (events() + "u99,i0,1\n", [], ["items that some users do not have", "each of the 15 users with an episode"]),
        (LOG, [], ['"event" names events, which need weights', "set event_weights, as in {view: 1}"]),
        (
            LOG + "u1,x1,buy\n",
            ["event_weights={view: 1}"],
            ['the event "buy" has no weight', "add it to event_weights"],
        ),
        (LOG, ["event_weights={view: -1}"], ["event_weights.view must be a finite number > 0"]),
        (GOOD, ["ranking.positive=9"], ["positive must lie in the scale 1..5 but is 9"]),
        (GOOD, ["ranking.positive=9", "scale=1,10"], ["no rating is 9 or more, the highest is 5", "a lower positive"]),
        (GOOD, ["ranking.positive=.nan"], ["ranking.positive", "finite"]),
        (GOOD, [], ["each of the 15 users with an episode has all 20 items"]),
        (events(less=3), ["ranking.candidates=0"], ["ranking.candidates", "greater than or equal to 10, but got 0"]),
        (events(less=3), ["ranking.negatives=0"], ["ranking.negatives", "greater than or equal to 1, but got 0"]),
        (events(less=3), ["episodes.draws=2"], ["episodes.draws must be 1 for ranking but got 2"]),
        (events(less=3).replace("item,", "item,weight,"), [], ['two columns are named "weight"', "rename or remove"]),
        (events(less=3, weight="1,2").replace("weight", "time,time"), [], ['two columns are named "time"']),
        (
            events(less=3, weight="9").replace("weight", "time") + "u1,x1,2001-01-01\n",
            [],
            ["line 257", "the timestamp"],
        ),
        (events(less=3, weight="2500-01-01").replace("weight", "time"), [], ["line 2", "before 2262"]),
        (events(less=3, users=9), [], ["9 of 9 users have the 15 items", "at least 10 such users"]),
        (events(users=1), [], ["only one user"]),
        ("", [], ["the file is empty", "is needed"]),
        ("user,item,weight\n", [], ["has a header but no rows"]),
    ],
)
def test_bad_events(here, refused, content, arguments, parts):
    (here / "a.csv").write_text(content)
    options = [part for one in arguments if "=" in one for part in ("--set", one)] or arguments
    line = refused("ranking", "--data", "shop=a.csv", *options)
    assert all(part in line for part in parts), line


def test_a_rating_out_of_the_given_scale(here, refused):
    (here / "a.csv").write_text(GOOD + "u1,x1,5.5\n")
    line = refused("--data", "m=a.csv", "--set", "scale=1,5")
    assert "a.csv, line 302: the rating" in line
    assert "must lie in the scale 1..5 but is 5.5" in line
    assert "two numbers" in refused("--data", "m=a.csv", "--set", "scale=wide")


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("trails: 3\n", ['unknown key "trails"', 'did you mean "trials"?']),
        ("training: {epoch: 3}\n", ['unknown key "training.epoch"', 'did you mean "epochs"?']),
        ("episodes: {shot: 3}\n", ['unknown key "episodes.shot"', 'did you mean "shots"?']),
        ("trials: many\n", ["trials", "'many'"]),
        ("training: {epochs: 1.5}\n", ["training.epochs", "1.5"]),
        ("training: 3\n", ["training", "3"]),
        ("episodes: {min_query: 9, max_query: 3}\n", ["min_query must be <= max_query but got 9 > 3"]),
        ("bases: [bais]\n", ['"bais"', 'did you mean "bias"?']),
        ("bases: {item-knn: {neighbors: 3}}\n", ["bases.item-knn.neighbors"]),
        ("bases: []\n", ["bases must name at least one"]),
        ("engine: bached\n", ['"bached"', 'did you mean "batched"?']),
        ("fusion: {network: atention}\n", ['"atention"', 'did you mean "attention"?']),
        ("baselines: [rigde]\n", ['"rigde"', 'did you mean "ridge"?']),
        ("pruner: medain\n", ["pruner", "'medain'", "median"]),
        ("search: {iner_lr: {low: 0.1, high: 1}}\n", ['"iner_lr"', 'did you mean "inner_lr"?']),
        ("search: {inner_lr: {low: 1, high: 0.1}}\n", ["search.inner_lr", "low <= high"]),
        ("search: {inner_lr: {lo: 1, high: 0.1}}\n", ["search.inner_lr"]),
        ("defaults: {iner_lr: 0.1}\n", ['"iner_lr"', 'did you mean "inner_lr"?']),
        ("defaults: {inner_lr: fast}\n", ["inner_lr", "float", "'fast'"]),
        ("defaults: {inner_lr: 100}\n", ["defaults.inner_lr", "0.001..0.3", "100"]),
        ("defaults: {learn_rates: maybe}\n", ["defaults.learn_rates", "False|True", "'maybe'"]),
        ("search: {loss: {choices: [hubert]}}\n", ['search.loss: unknown choice "hubert"', 'did you mean "huber"?']),
        ("search: {adapted: {first: 0, last: 1}}\n", ["search.adapted must be choices among all|head|ridge", "0..1"]),
        ("search: {inner_steps: {low: 0, high: 3}}\n", ["search.inner_steps must be whole numbers", "0..3"]),
        ("training: {loss: mse}\n", ["training.loss is now the parameter loss", "search.loss={choices: [mse]}"]),
        (
            "fusion: {network: attention, options: {combine: softmax}}\nsearch: {combine: {choices: [product]}}\n",
            ["search.combine: fusion.options.combine already fixes it", "remove one of them"],
        ),
        (
            "fusion: {network: attention, options: {combine: softmax}}\ndefaults: {combine: softmax}\n",
            ["defaults.combine: fusion.options.combine already fixes it"],
        ),
        ("columns: {usr: who}\n", ['"usr"', 'did you mean "user"?']),
        ("domains: simulatd\n", ["domains must be", '"simulatd"']),
        ("a: [1\n", ["not a YAML file", "line"]),
        ("just words\n", ["a spec must be a mapping"]),
        ("", ["a spec must be a mapping"]),
        (b"\xff\xfe\0", ["not a YAML file"]),
    ],
)
def test_a_bad_spec(here, refused, spec, parts):
    (here / "mine.yaml").write_bytes(spec if isinstance(spec, bytes) else spec.encode())
    line = refused("mine.yaml")
    assert all(part in line for part in parts), line
    # What read_data finds wrong has no file to name any more, but the key.
    assert "mine.yaml" in line or "domains" in line


def test_a_spec_that_is_not_there(refused):
    assert 'unknown spec "quickstrat"; did you mean "quickstart"?' in refused("quickstrat")
    assert "no/such.yaml: there is no such spec file" in refused("no/such.yaml")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--trials", "0"], ["trials", "greater than or equal to 1", "0"]),
        (["--trials", "x"], ["--trials", "valid integer", "--help"]),
        (["--trials", "2.5"], ["--trials", "valid integer"]),
        (["--workers", "0"], ["workers", "greater than or equal to 1"]),
        (["--seed", "-1"], ["seed", "greater than or equal to 0", "-1"]),
        (["--timeout", "0"], ["timeout", "greater than 0"]),
        (["--target", "moveis"], ['--target "moveis"', 'did you mean "movies"?']),
        (["--data", "m=good.csv", "--target", "n"], ['--target "n"', "Known: m"]),
        (["--data", "m=good.csv", "--data", "n=good.csv"], ["--target must say which", "m, n"]),
        (["--data", "m=good.csv", "--data", "m=good.csv"], ["--data", '"m"', "twice"]),
        (["--data", "good.csv"], ["--data must be NAME=PATH", '"good.csv"']),
        (["--data", "=good.csv"], ["--data must be NAME=PATH"]),
        (["--data", "a/b=good.csv"], ["must not hold a slash", '"a/b"']),
        (["--set", "pruner"], ["--set must be KEY=VALUE", '"pruner"']),
        (["--set", "prunner=none"], ['unknown key "prunner"', 'did you mean "pruner"?']),
        (["--set", "training.epoch=3"], ['unknown key "training.epoch"', 'did you mean "epochs"?']),
        (["--set", "trials.more=3"], ["trials", "has no keys"]),
        (["--set", "trials=[1"], ["trials"]),
        (["--json", "no/such/out.json"], ["--json no/such/out.json", "a folder that exists"]),
        (["--json", "."], ["--json .", "cannot be written"]),
        (["--study-name", "a/b"], ["--study-name", '"a/b"']),
        (["--study-name", ""], ["--study-name"]),
        (["--study-name", "影" * 34], ["--study-name must have at most 100 bytes in UTF-8 but has 102"]),
        (["--study-name", "a\x1b[31m\nb\u202e"], ["--study-name must hold printable", r'"a\x1b[31m\nb\u202e"']),
        (["--data", "\x1b[2J=good.csv"], ["--data: the name of a domain must hold printable", r"\x1b[2J"]),
        (["--data", "m=\x1b[2J.csv"], [r"\x1b[2J.csv"]),
        (
            ["--set", "domains={../up: good.csv}"],
            ['domains: the name of a domain must not hold a slash but got "../up"'],
        ),
        (["--nonsense"], ["--nonsense"]),
        (["quickstart", "another"], ["another"]),
        (["--trials"], ["--trials"]),
        (["--tracking-uri", "./mlruns"], ["./mlruns", "plain folder", "use sqlite:///"]),
        (["--storage", "nonsense"], ["--storage", "must be a URL", '"nonsense"']),
        (["--storage", "nonsense://x"], ["--storage nonsense://x cannot be opened", "give another"]),
        (["--storage", "postgresql://127.0.0.1:1/x"], ["--storage postgresql", "cannot be opened", "give another"]),
        (["--storage", "sqlite:////no/such/folder/a.db"], ["--storage sqlite", "unable to open", "give another"]),
    ],
)
def test_a_bad_argument(refused, arguments, parts):
    line = refused(*arguments)
    assert all(part in line for part in parts), line


def test_a_tracking_uri_that_does_not_answer(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    line = refused("--tracking-uri", f"http://127.0.0.1:{port}")
    assert f"http://127.0.0.1:{port} does not answer" in line
    assert "give another" in line


@pytest.mark.parametrize("out", ["good.csv/runs", "/proc/no-such/runs"])
def test_an_output_folder_that_cannot_be_written(refused, out):
    line = refused("--data", "m=good.csv", out=out)
    assert f"--out {out}: cannot be written" in line
    assert "give another folder" in line


def test_messages_before_an_error_are_delayed_but_not_lost(here, monkeypatch, capsys):
    from metarec.study import protocols as stages

    monkeypatch.setattr(sys, "argv", ["study", "--data", "m=good.csv", "--out", "runs"])
    monkeypatch.setattr(stages, "build_episodes", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.main()
    printed = capsys.readouterr().err
    assert "scale 1..5 inferred" in printed
    assert printed.index("inferred") < printed.index("m: 15 users, 20 items, 300 ratings")


@pytest.fixture
def job_that(here, monkeypatch, capsys):
    """Runs the command with this function in place of the episodes; returns the exit code and what was printed."""
    from metarec.study import protocols as stages

    def run(what):
        monkeypatch.setattr(sys, "argv", ["study", "--data", "m=good.csv", "--out", "runs", "--study-name", "s"])
        monkeypatch.setattr(stages, "build_episodes", lambda *args, **kwargs: what())
        with pytest.raises(SystemExit) as ended:
            command.main()
        return ended.value.code, capsys.readouterr().err

    return run


def test_sigterm_is_as_ctrl_c(job_that):
    before = signal.getsignal(signal.SIGTERM)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        ended, printed = job_that(lambda number=number: signal.raise_signal(number))
        assert ended == code
        assert printed.splitlines()[-1] == "interrupted; to continue, run the same command with --study-name s"
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_end_of_a_file_is_no_ctrl_c(here, monkeypatch):
    from metarec.study import protocols as stages

    def cut():
        raise EOFError("cut short")

    monkeypatch.setattr(sys, "argv", ["study", "--data", "m=good.csv", "--out", "runs"])
    monkeypatch.setattr(stages, "build_episodes", lambda *args, **kwargs: cut())
    with pytest.raises(EOFError, match="cut short"):
        command.main()


def test_a_killed_worker_is_one_line(job_that):
    def killed():
        raise WorkerEnded("a worker process has ended during its work, by signal SIGKILL")

    ended, printed = job_that(killed)
    assert ended == 1
    assert printed.splitlines()[-1] == "error: a worker process has ended during its work, by signal SIGKILL"


def test_json_may_go_into_the_folder_that_the_study_makes(here, refused):
    # It fails later than at --json.
    assert "--target" in refused("--json", "runs/out.json", "--target", "nobody")


def run(arguments, folder, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "movies=missing.csv"],
        ["--data", "m=good.csv", "--out", "good.csv/runs"],
    ],
)
def test_in_a_process_of_its_own(here, arguments):
    ended = run(["-m", "metarec.study", *arguments], here)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", ended.stderr), ended.stderr
    assert [path.name for path in here.iterdir()] == ["good.csv"]


def test_help_names_every_option_and_is_quick(here):
    times = []
    for _ in range(3):
        began = time.perf_counter()
        ended = run(["-m", "metarec.study", "--help"], here)
        times.append(time.perf_counter() - began)
    assert ended.returncode == 0
    assert all(option in ended.stdout for option in OPTIONS)
    # 0.25 s on an idle machine; other processes may be at work here.
    assert statistics.median(times) < 1.0
    assert [path.name for path in here.iterdir()] == ["good.csv"]


@pytest.mark.parametrize("arguments", [["-c", "import metarec"], ["-m", "metarec.study", "--help"]])
def test_nothing_heavy_is_imported_before_it_is_used(here, arguments):
    ended = run(["-X", "importtime", *arguments], here)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()}
    assert "metarec" in imported
    assert not imported & HEAVY


def test_importing_the_package_is_quick(here):
    code = "import time; t = time.perf_counter(); import metarec; print(time.perf_counter() - t)"
    assert statistics.median(float(run(["-c", code], here).stdout) for _ in range(3)) < 0.3
