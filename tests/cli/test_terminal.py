"""Names and messages from outside are shown as they are, and control no terminal."""

import io
import logging
from dataclasses import replace

import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console

from metarec.cli import study_tables
from metarec.cli.terminal import ProgressLine, _TimeLeft, library_messages, show_data, terminal
from metarec.evaluation.measures import RATING
from metarec.ratings import Domain

NAME = "[red]a[red] [link=x]b :smile: [bold] ☃"
CONTROL = "\x1b[2J\x1b]0;title\x07\u202e\u2066\u200b\x9b31m"


@pytest.fixture
def console():
    """The console of the results, with its output in a file."""
    made = terminal()
    made.file, made.width = io.StringIO(), 400
    return made


def printed(console):
    text = console.file.getvalue()
    assert text.replace("\n", "").isprintable()
    return text


def test_the_result_of_a_study(console, finished):
    _, result, _ = finished
    engine = result.engines[0]._replace(engine="[red]x", milliseconds=None, problem=f"{NAME}{CONTROL}")
    changed = replace(
        result,
        name=NAME,
        target=NAME,
        test={NAME: result.test["movies"]},
        settings={NAME: result.settings["movies"]},
        engines=[*result.engines, engine],
    )
    study_tables.show_result(console, changed)
    text = printed(console)
    assert f"{NAME}, scale" in text
    assert f"study {NAME}'s combination" in text
    assert "Meta-learning lowers the RMSE of stack, the same combination without networks, by" in text
    assert "[red]x" in text
    assert r"\x1b[2J\x1b]0;title\x07\u202e\u2066\u200b\x9b31m" in text


def test_the_best_trial_is_that_of_the_whole_study():
    """A study that goes on marks a trial only if no earlier one is better."""
    console = Console(file=io.StringIO(), width=200)
    earlier, worse, better = (
        create_trial(value=value, params={}, distributions={}, state=TrialState.COMPLETE) for value in (0.2, 0.3, 0.1)
    )
    for number, trial in enumerate((earlier, worse, better)):
        trial.number = number
    with library_messages(console) as messages:
        watcher = study_tables.TerminalWatcher(console, messages)
        watcher.on_trial(worse, [earlier, worse], 4, RATING)
        watcher.on_trial(better, [earlier, worse, better], 4, RATING)
    first, second = console.file.getvalue().splitlines()
    assert "best so far" not in first
    assert "best so far" in second


def test_the_data(console, world):
    movies = world["movies"]
    show_data(console, {NAME: Domain(NAME, movies.ratings, movies.scale)})
    assert f"{NAME}: 60 users" in printed(console)


def test_progress(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=400)
    with library_messages(console) as messages, ProgressLine(console, messages) as progress:
        progress._progress.start()
        progress._show(f"base recommenders, {NAME}{CONTROL}", 1, 2)
        progress._progress.refresh()
    text = console.file.getvalue()
    assert NAME in text
    assert r"\x1b[2J" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_the_bar_keeps_its_time_and_shows_what_is_left():
    now = [0.0]
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
    with library_messages(console) as messages, ProgressLine(console, messages) as line:
        progress = line._progress
        progress.get_time = lambda: now[0]
        line._show("base recommenders, bias", 0, 10)
        (first,) = progress.task_ids
        for done in (1, 2, 3):
            now[0] = 60.0 * done
            line._show(f"base recommenders, {done}", done, 10)
        (task,) = progress.tasks
        assert (task.id, task.elapsed, task.description) == (first, 180.0, "base recommenders, 3")
        assert _TimeLeft().render(task).plain == "7 min 0 s left"
        # Other work, and the same work from its begin, have a time of their own.
        line._show("trials", 1, 30)
        assert progress.tasks[0].elapsed == 0
        line._show("opening the store of runs")
        assert _TimeLeft().render(progress.tasks[0]).plain == ""


def test_the_log():
    console = Console(file=io.StringIO(), color_system=None, width=400)
    with library_messages(console) as messages:
        messages.show()
        logging.getLogger("metarec.x").warning("domain %s\nerror: forged", NAME + CONTROL)
    text = printed(console)
    assert text.startswith(rf"warning: domain {NAME}\x1b[2J")
    assert text.count("\n") == 1
