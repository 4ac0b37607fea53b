"""MLflow's pages in a browser, on the store of the quickstart.

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

WIDTH, HEIGHT = 1400, 1000

# MLflow's pages send requests to other machines, which may be unreachable, and to a server without users.
NOT_OURS = re.compile(r"https?://(?!127\.0\.0\.1)|/users/current - Failed to load resource: .* 404")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The folder of a quickstart, as ``make study`` runs it."""
    folder = tmp_path_factory.mktemp("quickstart")
    command = [sys.executable, "-m", "metarec.study", "--out", "mlruns", "--study-name", "quickstart"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture(scope="module")
def runs(store):
    """The parent, and its trials in their order."""
    client = MlflowClient(tracking_uri=sqlite_uri(store / "mlruns" / "mlflow.db"))
    found = client.search_runs([client.get_experiment_by_name("metarec").experiment_id])
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    return parent, sorted(children, key=lambda run: run.info.start_time)


@pytest.fixture(scope="module")
def address(store):
    """The address of ``mlflow ui`` on the store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///mlruns/mlflow.db"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (store / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=store, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            where = f"http://127.0.0.1:{port}"
            for _ in range(300):
                assert server.poll() is None, (store / "log").read_text()
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


def test_the_registry_shows_the_model(look, runs):
    look("model", "models/metarec-quickstart", "metarec-quickstart", "champion")
    look("version", "models/metarec-quickstart/versions/1", "Inputs (3)", "Outputs (1)", "champion", "quickstart")
