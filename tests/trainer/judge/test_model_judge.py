"""A model as judge, behind a real HTTP server that speaks the protocol: orders swapped, broken answers asked again, tokens counted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from swarm.errors import UserError
from swarm.settings import Judge, StreamSettings
from tests.trainer.conftest import Bench
from tests.trainer.roles.test_judging import a_trained
from toon import decode
from trainer.judge.model_judge import Case, judged, points_in

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
CASES = [
    Case("double 2", "4", base="five", adapter="4"),
    Case("double 3\n", "6", base="6", adapter="no, idea"),
    Case("double 4", "8", base="x", adapter="y"),
]


class Server(ThreadingHTTPServer):
    """Answers what `reply` makes of the rows of the table that it was sent; keeps every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply: Callable[[list[dict[str, Any]]], str] = right_one
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.status = 200

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        rows = decode(body["messages"][1]["content"])
        message = {"role": "assistant", "content": self.server.reply(rows)}
        answer = json.dumps({"object": "chat.completion", "choices": [{"index": 0, "message": message}]}).encode()
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers), {}))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def verdicts(rows: list[dict[str, Any]], better: Callable[[dict[str, Any]], str]) -> str:
    return json.dumps([{"row": row["row"], "better": better(row)} for row in rows])


def right_one(rows: list[dict[str, Any]]) -> str:
    """An honest judge: what is equal to the expected answer is better."""

    def better(row: dict[str, Any]) -> str:
        first, second = (str(row[place]) == str(row["expected"]) for place in ("first", "second"))
        return "tie" if first == second else "first" if first else "second"

    return verdicts(rows, better)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(server: Server, cases: list[Case] = CASES, **changes: Any):
    return judged(Judge.model_validate({"endpoint": server.endpoint, "model": "m", **changes}), cases, lambda: None)


EXACT = [(True, False), (False, True), (False, False)]


def test_an_honest_judge_agrees_with_exact_match(server: Server) -> None:
    found = ask(server)
    assert found.scores == [1.0, 0.0, 0.5]
    figures = found.figures(EXACT, len)
    assert (figures["judge_score"], figures["judge_agreement"], figures["judge_failed"]) == (0.5, 1.0, 0)


def test_the_samples_go_out_as_a_toon_table_with_fewer_tokens_than_json(server: Server) -> None:
    found = ask(server)
    path, _, body = server.requests[0]
    assert (path, body["model"], body["temperature"]) == ("/v1/chat/completions", "m", 0)
    table = body["messages"][1]["content"]
    assert table.startswith("[3]{row,prompt,expected,first,second}:\n")
    assert decode(table)[1] == {"row": 2, "prompt": "double 3\n", "expected": "6", "first": "6", "second": "no, idea"}
    assert json.loads(found.json[0]) == decode(table)
    figures = found.figures(EXACT, len)
    assert 0 < figures["judge_toon_tokens"] < figures["judge_json_tokens"]


def test_a_judge_that_likes_the_first_place_likes_nobody(server: Server) -> None:
    server.reply = lambda rows: verdicts(rows, lambda _: "first")
    assert ask(server).scores == [0.5, 0.5, 0.5]
    first, second = (decode(body["messages"][1]["content"])[0] for _, _, body in server.requests)
    assert (first["first"], first["second"]) == ("five", "4")
    assert (second["first"], second["second"]) == ("4", "five")


def test_of_a_broken_answer_whole_objects_are_taken_and_the_rest_is_asked_once_more(server: Server) -> None:
    def torn_once(rows: list[dict[str, Any]]) -> str:
        text = right_one(rows)
        return f"Sure!\n```json\n{text[:-20]}" if len(rows) == 3 else f"here: {text}"

    server.reply = torn_once
    assert ask(server).scores == [1.0, 0.0, 0.5]
    assert [len(decode(body["messages"][1]["content"])) for _, _, body in server.requests] == [3, 1, 3, 1]


def test_what_is_unusable_twice_has_no_judgement(server: Server) -> None:
    server.reply = lambda rows: (
        verdicts([row for row in rows if row["row"] != 2], lambda _: "first") + '[{"row": 2, "better": "?"}]'
    )
    found = ask(server)
    assert found.scores == [0.5, None, 0.5]
    assert found.figures(EXACT, len)["judge_failed"] == 1
    server.reply = lambda rows: "I cannot judge that."
    assert ask(server).scores == [None, None, None]
    assert "judge_score" not in ask(server).figures(EXACT, len)


def test_many_pairs_go_in_several_requests_with_key_and_rubric(
    server: Server, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rubric.md").write_text("Shorter is better.\n")
    monkeypatch.setenv("JUDGE_KEY", "k-1")
    more = {"rows_per_request": 2, "key_variable": "JUDGE_KEY", "rubric": str(tmp_path / "rubric.md")}
    assert ask(server, **more).scores == [1.0, 0.0, 0.5]
    assert len(server.requests) == 4
    _, headers, body = server.requests[0]
    assert headers["Authorization"] == "Bearer k-1"
    assert "Shorter is better." in body["messages"][0]["content"]
    with pytest.raises(UserError, match=r"^judge\.key_variable: NO_KEY is not set"):
        ask(server, key_variable="NO_KEY")


def test_the_key_is_sent_to_the_address_of_the_config_and_to_no_other(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "k-1")
    server.status = 302
    with pytest.raises(UserError, match=r"^judge\.endpoint: http://127.* answered 302 Found"):
        ask(server, key_variable="JUDGE_KEY")
    assert [path for path, _, _ in server.requests] == ["/v1/chat/completions"]


def test_a_server_that_refuses_or_is_not_there_is_named(server: Server) -> None:
    server.status = 401
    with pytest.raises(
        UserError, match=r"^judge\.endpoint: http://127.* answered 401 Unauthorized; check judge\.model"
    ):
        ask(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"^judge\.endpoint: http://127.* cannot be reached .*; start the server"):
        ask(server)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"row": 1, "better": " First "}', [(1, 1.0)]),
        ('[{"row": 1, "better": "tie"}, {"row": 2, "bet', [(1, 0.5)]),
        ('{"rows": [{"row": 1, "better": "second"}]}', [(1, 0.0)]),
        ('{"row": true, "better": "first"} {"row": "1", "better": "first"} {"row": 2, "better": 1} {', []),
        ("{" * 3000, []),
    ],
)
def test_only_objects_of_the_right_shape_count(text: str, found: list[tuple[int, float]]) -> None:
    assert list(points_in(text)) == found


def test_a_stream_that_names_a_judge_gets_its_figures_and_each_sample_its_judgement(
    bench: Bench, settings: Callable[..., StreamSettings], server: Server
) -> None:
    chosen = settings(judge={"endpoint": server.endpoint, "model": "m"})
    score = bench.do("evaluate", chosen, **a_trained(bench, chosen))["score"]
    assert score.figures["judge_score"] == 0.5
    assert score.figures["judge_toon_tokens"] > 0
    lines = (bench.place.stream_folder("one") / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["judge"] for line in lines] == [0.5] * 4
