"""The serving benchmark asks, and notices a wrong answer."""

import pytest

from benchmarks.serving.clients import Question, ask_for, questions
from benchmarks.serving.run import describe, measure
from metarec.model import load_model
from tests.support.small_model import FOLDER


@pytest.mark.slow
def test_every_answer_is_compared():
    report = measure(str(FOLDER), None, [1, 4], seconds=2, last=3)
    assert [one["clients"] for one in report["rounds"]] == [1, 4]
    assert all(one["requests"] > 0 and one["errors"] == one["wrong"] == 0 for one in report["rounds"])
    run = {"command": "c", "machine": {"cores": 2, "cpu": "x"}, "date": "d"}
    assert "| 4 |" in describe({**report, "run": run})


def test_a_wrong_answer_and_an_error_are_counted():
    asked = questions(load_model(FOLDER / "data" / "metarec"), 6)
    assert len(asked[0].expected) == 10
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Wrong(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            content = b'{"predictions": [{"prediction": 1.0}]}'
            self.send_response(200 if self.server.right else 500)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for server.right in (True, False):
            record, _ = ask_for(server.server_port, asked, clients=2, seconds=0.2)
            assert record.seconds
            assert (record.wrong, record.errors) == (
                (len(record.seconds), 0) if server.right else (0, len(record.seconds))
            )
        record, _ = ask_for(server.server_port, [Question(b"{}", [1.0])] * 2, clients=2, seconds=0.1)
        server.right = True
        server.shutdown()
