"""MLflow's pages in a browser, on the store of a short quickstart and of a comparison.

Each test waits for a page, checks its text, its console and its width, and saves a screenshot in the folder that
METAREC_SCREENSHOTS names.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from metarec.tracking import sqlite_uri

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="no chromedriver (Debian: chromium-driver)"),
]

WIDTH, HEIGHT = 1600, 900

# MLflow's pages send requests to other machines, which may be unreachable, and to a server without users. Chromium
# warns of a table that is measured while its width changes.
NOT_OURS = re.compile(r"https?://(?!127\.0\.0\.1)|/users/current - Failed to load resource: .* 404|ResizeObserver loop")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The folder of a short quickstart and of a small comparison, and what both printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    few = ["--target-users", "6", "--shots", "2,4", "--seeds", "2", "--strategies", "zero_shot,pooled,auto,stack"]
    commands = {
        "study": ["metarec.study", "--study-name", "quickstart", "--trials", "3", "--set", "training.epochs=4"],
        "compare": ["metarec.compare", "--name", "transfer", *few],
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    printed = {}
    for name, command in commands.items():
        whole = [sys.executable, "-m", *command, "--out", "mlruns"]
        ran = subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        printed[name] = ran.stdout
    return folder, printed


@pytest.fixture(scope="module")
def runs(store):
    """The parent, and its trials in their order."""
    client = MlflowClient(tracking_uri=sqlite_uri(store[0] / "mlruns" / "mlflow.db"))
    found = client.search_runs([client.get_experiment_by_name("metarec").experiment_id])
    (parent,) = (run for run in found if run.data.tags["metarec.role"] == "study")
    children = [run for run in found if run.data.tags["metarec.role"] == "trial"]
    return parent, sorted(children, key=lambda run: run.info.start_time)


@pytest.fixture(scope="module")
def address(store):
    """The address of ``mlflow ui`` on the store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///mlruns/mlflow.db"]
    folder, _ = store
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            where = f"http://127.0.0.1:{port}"
            for _ in range(300):
                assert server.poll() is None, (folder / "log").read_text()
                try:
                    with urllib.request.urlopen(f"{where}/health", timeout=2):
                        break
                except OSError:
                    time.sleep(0.3)
            yield where
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless chromium that keeps its console messages."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        f"--user-data-dir={profile}",
        f"--window-size={WIDTH},{HEIGHT}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def look(browser, address, tmp_path):
    """Opens a page, waits for the words, checks the page, and saves a screenshot."""
    kept = Path(os.environ.get("METAREC_SCREENSHOTS") or tmp_path)
    kept.mkdir(parents=True, exist_ok=True)

    def open_page(name, path, *words, within=None):
        browser.get_log("browser")
        browser.get("about:blank")
        browser.get(f"{address}/#/{path}")
        text = waited_for(browser, words, within)
        time.sleep(0.5)
        browser.save_screenshot(str(kept / f"{name}.png"))
        errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
        assert not [line["message"] for line in errors if not NOT_OURS.search(line["message"])]
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= browser.execute_script("return window.innerWidth"), "the page is wider than its window"
        return text

    return open_page


def waited_for(browser, words, within):
    """The text of the page, or of its frame `within`, once all words are in it."""
    text = ""
    for _ in range(120):
        browser.switch_to.default_content()
        if within is not None:
            frames = browser.find_elements("css selector", within)
            if not frames:
                time.sleep(0.25)
                continue
            browser.switch_to.frame(frames[0])
        text = browser.execute_script("return document.body ? document.body.innerText : ''")
        if all(word in text for word in words):
            browser.switch_to.default_content()
            return text
        time.sleep(0.25)
    browser.switch_to.default_content()
    missing = [word for word in words if word not in text]
    raise AssertionError(f"{missing} not on the page: {text[:2000]}")


def page_of(run, tab=""):
    return f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}{tab}"


def printed_page(store, command, line):
    """The page that a command printed after this text, without the server's address."""
    (found,) = re.findall(rf"^{line}: \S+?/#/(\S+)$", store[1][command], re.MULTILINE)
    return found


def seen(browser):
    """The texts of the cells of the table of runs that are visible without scrolling."""
    script = """return [...document.querySelectorAll('[role=gridcell]')].filter(cell => {
        const at = cell.getBoundingClientRect();
        return at.top >= 0 && at.bottom <= window.innerHeight && at.right <= window.innerWidth;
    }).map(cell => cell.innerText)"""
    # The text of a name follows that of its colour.
    return [text.rpartition("\n")[2] for text in browser.execute_script(script)]


def test_the_printed_address_of_a_study_is_a_leaderboard(look, store, browser):
    look("leaderboard", printed_page(store, "study", "then look at"), "gain of metarec", "· metarec", "· stack")
    cells = seen(browser)
    names = [cell for cell in cells if re.fullmatch(r"\d\.\d{4} · [\w-]+", cell)]
    assert len(names) >= 8
    scores = [float(name.split()[0]) for name in names]
    assert scores == sorted(scores)
    assert [cell for cell in cells if re.search(r" % \[.*\]: (better|worse|no significant difference)$", cell)]


def test_the_printed_address_of_trials_has_their_parameters(look, store):
    look("trials", printed_page(store, "study", "its trials"), "trial-000", "validation_unit", "inner_lr", "outer_lr")


def test_the_printed_address_of_a_comparison_is_a_leaderboard(look, store, browser):
    page = printed_page(store, "compare", "then look at")
    look("comparison-leaderboard", page, "gain over scratch", "· auto", "· scratch", "· pooled")
    cells = seen(browser)
    gains = [float(cell.split()[0]) for cell in cells if re.search(r" % \[.*\]: ", cell)]
    assert len(gains) >= 4
    assert gains == sorted(gains, reverse=True)


def test_two_strategies_are_lines_of_one_chart(look, store):
    page = f"{printed_page(store, 'compare', 'then look at')}&compareRunsMode=CHART"
    # The legend of the first chart has a line for each run.
    look("comparison-chart", page, "· auto (gain_percent)", "· pooled (gain_percent)", "interval_low")


def test_the_report_of_a_comparison_is_previewed(look, store):
    page = printed_page(store, "compare", "this comparison").partition("?")[0]
    look("comparison-report", f"{page}/artifacts/report.html", "in hindsight with 6 target users", within="iframe")


def test_the_experiment_lists_the_study(look, runs):
    parent, _ = runs
    look("experiment", f"experiments/{parent.info.experiment_id}/runs?workflowType=machine_learning", "quickstart")


def test_the_page_of_a_study_shows_its_description(look, runs):
    parent, _ = runs
    text = look("study", page_of(parent), "Data", "Result", "best-single", "metarec-quickstart")
    assert "movies" in text


def test_the_page_of_a_trial_shows_its_parameters_and_value(look, runs):
    _, children = runs
    look("trial", page_of(children[0]), "validation_unit_rmse", "inner_lr", children[0].info.run_name)


def test_three_trials_are_compared(look, runs):
    parent, children = runs
    chosen = [run.info.run_id for run in children[:3]]
    query = f"runs={json.dumps(chosen, separators=(',', ':'))}&experiments={json.dumps([parent.info.experiment_id])}"
    look("comparison", f"compare-runs?{query}", *(run.info.run_name for run in children[:3]), "inner_lr")


def test_a_picture_is_previewed(look, runs, browser):
    parent, _ = runs
    look("picture", page_of(parent, "/artifacts/search.png"), "search.png")
    for _ in range(60):
        drawn = browser.execute_script("return [...document.images].map(i => [i.naturalWidth, i.clientWidth])")
        if any(natural >= 700 and shown > 300 for natural, shown in drawn):
            return
        time.sleep(0.25)
    raise AssertionError(f"no picture is drawn: {drawn}")


def test_the_report_is_previewed(look, runs):
    parent, _ = runs
    path = page_of(parent, "/artifacts/report.html")
    look("report", path, "best-single", "Comparison with other models", within="iframe")


@pytest.mark.parametrize(("name", "pictures"), [("quickstart", 9), ("transfer", 2)])
def test_every_picture_of_a_report_is_drawn(name, pictures, store, runs, browser, tmp_path):
    """The whole page in one screenshot, however long it is."""
    pages = list((store[0] / "mlruns" / "artifacts").rglob("report.html"))
    page = next(path for path in pages if f"<title>{name}: report" in path.read_text())
    browser.get(page.as_uri())
    height = browser.execute_script("return document.documentElement.scrollHeight")
    browser.set_window_size(WIDTH, height + 200)
    sizes = browser.execute_script("return [...document.images].map(i => [i.naturalWidth, i.clientWidth])")
    kept = Path(os.environ.get("METAREC_SCREENSHOTS") or tmp_path)
    browser.save_screenshot(str(kept / f"report-of-{name}.png"))
    browser.set_window_size(WIDTH, HEIGHT)
    assert len(sizes) >= pictures
    assert all(natural == 800 and shown > 700 for natural, shown in sizes)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_the_registry_shows_the_model(look, runs):
    look("model", "models/metarec-quickstart", "metarec-quickstart", "champion")
    look("version", "models/metarec-quickstart/versions/1", "Inputs (3)", "Outputs (1)", "champion", "quickstart")
