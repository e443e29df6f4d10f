"""`swarm serve` as a program, with the official `openai` client and, for what that would not send, with plain HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import openai
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from swarm.errors import UserError
from swarm.settings import Judge
from tests.trainer import tiny
from trainer.judge.model_judge import Case, judged
from trainer.place import Place
from trainer.ship.answering import Sampling
from trainer.ship.models import Models
from trainer.ship.sources import sources_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
KEY = "the-key-of-this-test"
HELLO: Any = [{"role": "user", "content": "double 4"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


class Served:
    """A server of its own on the tests' base with two adapters."""

    def __init__(self, words: list[str], key: str = "") -> None:
        command = [sys.executable, "-P", "-m", "swarm.cli", "serve", *words, "--port", "0", "--json", "--device", "cpu"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "SWARM_SERVE_KEY": key}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        told = self.process.stdout.readline()
        assert told, self.process.stderr and self.process.stderr.read()
        self.url = json.loads(told)["url"]
        self.models = json.loads(told)["models"]
        self.client = openai.OpenAI(base_url=self.url, api_key=key or "none", max_retries=0, timeout=60)

    def post(self, body: bytes | dict[str, Any], path: str = "/chat/completions", **headers: str) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, raw, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.client.close()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("adapters")
    made = [
        tiny.save_adapter(base, folder / name, std=0.5, seed=seed) for seed, name in enumerate(("one", "two"), start=1)
    ]
    return [str(path) for path in made]


@pytest.fixture(scope="module")
def encoders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A BERT with a classification head and one without, whose vectors are those of the first token."""
    made: dict[str, Path] = {}
    words = tiny.tokenizer()
    for name, kind in {"sorter": BertForSequenceClassification, "bare": BertModel}.items():
        torch.manual_seed(len(made))
        config = BertConfig(
            vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=64, id2label={0: "ham", 1: "spam", 2: "other"}, pad_token_id=words.pad_token_id,
        )  # fmt: skip
        model = kind(config)
        for value in model.parameters():
            value.data.mul_(8)
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(made[name])
        words.save_pretrained(made[name])
    (made["bare"] / "1_Pooling").mkdir()
    (made["bare"] / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    return made


def with_positions(base: Path, folder: Path, positions: int) -> Path:
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
    return folder


@pytest.fixture(scope="module")
def served(adapters: list[str], encoders: dict[str, Path]) -> Iterator[Served]:
    more = [f"--encoder={name}={folder}" for name, folder in encoders.items()]
    with Served([*adapters, *more, "--most-waiting", "4", "--most-bytes", "20000", "--route", "coding=two"]) as server:
        yield server
        assert server.end() == 0


@pytest.fixture(scope="module")
def models(adapters: list[str]) -> Models:
    return Models(sources_of(adapters), Place(Path(), "cpu"))


def test_each_model_answers_by_its_name_whole_and_streamed_as_it_does_without_a_server(
    served: Served, models: Models
) -> None:
    assert [model.id for model in served.client.models.list()] == served.models == [*models.names, "sorter", "bare"]
    assert served.client.models.retrieve("two").owned_by == "toonswarm"
    for name in models.names:
        expected = models.answer(name, models.asker(name).question("double 4"), Sampling(12))
        whole = served.client.chat.completions.create(model=name, messages=HELLO, **GREEDY)
        assert (whole.model, whole.choices[0].message.role) == (name, "assistant")
        assert whole.choices[0].message.content == expected.text
        assert whole.choices[0].finish_reason == expected.ended
        assert whole.usage and whole.usage.completion_tokens == expected.tokens
        assert whole.usage.prompt_tokens == expected.prompt_tokens
        chunks = list(
            served.client.chat.completions.create(
                model=name, messages=HELLO, stream=True, stream_options={"include_usage": True}, **GREEDY
            )
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected.text
        assert chunks[-2].choices[0].finish_reason == expected.ended
        assert chunks[-1].usage == whole.usage


def test_text_is_continued_by_seed_in_several_choices_up_to_a_stop(served: Served, models: Models) -> None:
    how: dict[str, Any] = {"model": "one", "temperature": 1.0, "seed": 7, "max_tokens": 20}
    two = served.client.completions.create(prompt=["ab", "cd"], n=2, **how)
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3]
    expected = models.answer("one", models.asker("one").text("ab"), Sampling(20, 1.0, seed=7)).text
    assert two.choices[0].text == expected != two.choices[1].text
    ids = models.asker("one").text("ab")
    assert served.client.completions.create(prompt=ids, echo=True, **how).choices[0].text == f"ab{expected}"
    ended = served.client.completions.create(prompt="ab", stop=[expected[5:8]], **how).choices[0]
    assert (ended.text, ended.finish_reason) == (expected[: expected.index(expected[5:8])], "stop")
    streamed = served.client.completions.create(prompt="ab", stream=True, **how)
    assert "".join(chunk.choices[0].text for chunk in streamed) == expected


def test_of_the_likeliest_token_alone_a_hot_answer_is_the_greedy_one(served: Served) -> None:
    """A42: `top_p` arrives."""
    asked = {"model": "two", "prompt": "ab", "max_tokens": 20}
    greedy, hot = (
        served.client.completions.create(**asked, **how)
        for how in ({"temperature": 0}, {"temperature": 2, "seed": 7, "top_p": 1e-6})
    )
    assert hot.choices[0].text == greedy.choices[0].text


def refused(raised: Any) -> tuple[int, str | None, str | None]:
    body = raised.value.body
    assert body["type"] and body["message"]
    return raised.value.status_code, body["param"], body["code"]


def test_what_is_wrong_is_answered_as_the_api_does(served: Served) -> None:
    create: Any = served.client.chat.completions.create
    cases: list[tuple[dict[str, Any], type[openai.APIStatusError], tuple[int, str | None, str | None]]] = [
        ({"model": "three"}, openai.NotFoundError, (404, "model", "model_not_found")),
        ({"messages": []}, openai.BadRequestError, (400, "messages", "invalid_value")),
        ({"messages": [{"role": "robot", "content": "x"}]}, openai.BadRequestError, (400, "messages", "invalid_value")),
        ({"messages": [{"role": "user", "content": "long " * 300}]}, openai.BadRequestError, (400, "messages", "context_length_exceeded")),
        ({"max_tokens": 5000}, openai.BadRequestError, (400, "max_tokens", "context_length_exceeded")),
        ({"temperature": 9}, openai.BadRequestError, (400, "temperature", "invalid_value")),
        ({"logprobs": True}, openai.BadRequestError, (400, "logprobs", "unsupported_parameter")),
        ({"extra_body": {"colour": 1}}, openai.BadRequestError, (400, "colour", "unknown_parameter")),
        ({"stop": ["a"] * 5}, openai.BadRequestError, (400, "stop", "invalid_value")),
        ({"stop": [""]}, openai.BadRequestError, (400, "stop", "invalid_value")),
        ({"max_tokens": 0}, openai.BadRequestError, (400, "max_tokens", "invalid_value")),
        ({"max_completion_tokens": 0}, openai.BadRequestError, (400, "max_completion_tokens", "invalid_value")),
        ({"max_tokens": "many"}, openai.BadRequestError, (400, "max_tokens", "invalid_value")),
        ({"messages": "double 4"}, openai.BadRequestError, (400, "messages", "invalid_value")),
        ({"messages": [{"role": "user", "content": 4}]}, openai.BadRequestError, (400, "messages", "invalid_value")),
        ({"messages": [{"role": "user"}]}, openai.BadRequestError, (400, "messages", "invalid_value")),
        ({"n": 0}, openai.BadRequestError, (400, "n", "invalid_value")),
        ({"top_p": 0}, openai.BadRequestError, (400, "top_p", "invalid_value")),
        ({"stream": "perhaps"}, openai.BadRequestError, (400, "stream", "invalid_value")),
        ({"stream": True, "max_tokens": 5000}, openai.BadRequestError, (400, "max_tokens", "context_length_exceeded")),
        ({"messages": [{"role": "user", "content": "x" * 20_000}]}, openai.APIStatusError, (413, None, "request_too_large")),
        ({"n": 5}, openai.RateLimitError, (429, None, "rate_limit_exceeded")),
    ]  # fmt: skip
    for changes, kind, expected in cases:
        with pytest.raises(kind) as raised:
            create(**{"model": "one", "messages": HELLO, "max_tokens": 4, **changes})
        assert refused(raised) == expected, changes
    embed: Any = served.client.embeddings.create
    wrong: list[tuple[dict[str, Any], tuple[int, str | None, str | None]]] = [
        ({"model": "one"}, (400, "model", "unsupported_model")),
        ({"input": ""}, (400, "input", "invalid_value")),
        ({"input": []}, (400, "input", "invalid_value")),
        ({"input": ["a", 4]}, (400, "input", "invalid_value")),
        ({"input": "x" * 65}, (400, "input", "context_length_exceeded")),
        ({"dimensions": 8}, (400, "dimensions", "unsupported_parameter")),
    ]
    for changes, answer in wrong:
        with pytest.raises(openai.BadRequestError) as refusal:
            embed(**{"model": "bare", "input": "x", **changes})
        assert refused(refusal) == answer, changes
    with pytest.raises(openai.BadRequestError, match="it has no classification head"):
        create(model="bare", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="cannot complete a text"):
        served.client.completions.create(model="bare", prompt="x")
    half = rb'{"model": "one", "prompt": "\ud800", "max_tokens": 1}'
    assert served.post(b"{")[0] == served.post(b"[]")[0] == served.post(half, "/completions")[0] == 400
    assert served.post({"model": "one"})[1]["error"]["code"] == "missing_required_parameter"
    for prompt in ([10**6], [], [[]], [""], ["a", 4], 4):
        assert served.post({"model": "one", "prompt": prompt, "max_tokens": 1}, "/completions")[0] == 400, prompt


def test_a_page_whose_name_points_at_this_machine_is_refused(served: Served) -> None:
    """DNS rebinding: the browser sends the page's own name as the host."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        status, told = served.post({"model": "one", "messages": HELLO, "max_tokens": 1}, Host=host)
        assert (status, told["error"]["code"]) == (403, "host_not_allowed"), host
    for host in ("localhost", "127.0.0.1:8000", "[::1]:80", "LOCALHOST:1"):
        assert served.post({"model": "one", "messages": HELLO, "max_tokens": 1}, Host=host)[0] == 200, host


def test_a_page_of_another_site_is_refused_and_one_of_this_machine_is_answered(served: Served) -> None:
    """A browser sends such a request without asking first, and names the page's site."""
    body = {"model": "one", "messages": HELLO, "max_tokens": 1}
    for origin in ("https://evil.example", "http://127.0.0.1.evil.example", "null", ""):
        status, told = served.post(json.dumps(body).encode(), Origin=origin, **{"Content-Type": "text/plain"})
        assert (status, told["error"]["code"]) == (403, "origin_not_allowed"), origin
        assert served.post({"id": "x", "rating": 1}, "/ratings", Origin=origin)[0] == 403
    for origin in ("http://localhost:3000", "http://127.0.0.1"):
        assert served.post(body, Origin=origin)[0] == 200, origin


def by_transformers(kind: Any, folder: Path, text: str) -> Any:
    """What the library gives for one text without padding."""
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)(text)["input_ids"]])
    with torch.no_grad():
        return kind.from_pretrained(folder).eval()(input_ids=ids)


def test_an_encoder_gives_vectors_and_labels_as_transformers_does(served: Served, encoders: dict[str, Path]) -> None:
    texts = ["double 4", "a longer text than the first", "b"]
    for name, kind in {"sorter": AutoModel, "bare": AutoModel}.items():
        found = served.client.embeddings.create(model=name, input=texts)
        plain = served.client.embeddings.create(model=name, input=texts, encoding_format="float")
        assert [one.index for one in found.data] == [0, 1, 2]
        for text, one, same in zip(texts, found.data, plain.data, strict=True):
            states = by_transformers(kind, encoders[name], text).last_hidden_state[0]
            pooled = states[0] if name == "bare" else states.mean(0)
            expected = pooled / pooled.norm()
            assert torch.allclose(torch.tensor(one.embedding), expected, atol=1e-5)
            assert one.embedding == pytest.approx(same.embedding, abs=1e-6)
        assert found.usage.prompt_tokens == sum(map(len, texts)), "a byte is a token here"
    labels = {}
    for text in texts:
        logits = by_transformers(AutoModelForSequenceClassification, encoders["sorter"], text).logits
        labels[text] = {0: "ham", 1: "spam", 2: "other"}[int(logits.argmax())]
        asked: Any = {"messages": [{"role": "user", "content": text}], "extra_body": {"task": "classification"}}
        answer = served.client.chat.completions.create(model="auto", **asked)
        assert (answer.model, answer.choices[0].message.content) == ("sorter", labels[text])
    stream = served.client.chat.completions.create(model="sorter", messages=HELLO, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == labels["double 4"]
    assert served.client.embeddings.create(model="auto", input="x").model == "sorter"


def test_a_task_chooses_the_model(served: Served) -> None:
    create: Any = served.client.chat.completions.create
    asked = {"model": "auto", "messages": HELLO, "max_tokens": 2}
    assert create(**asked, extra_body={"task": "coding"}).model == "two"
    assert create(**asked).model == "one"


def test_requests_are_answered_in_their_order(served: Served) -> None:
    done: list[str] = []

    def ask(tokens: int) -> Any:
        """Returns once the server has taken the request."""
        return served.client.completions.create(model="one", prompt="a", stream=True, max_tokens=tokens, seed=4)

    def read_to_its_end(name: str, stream: Any) -> None:
        list(stream)
        done.append(name)

    taken = {name: ask(tokens) for name, tokens in (("first", 60), ("second", 30), ("third", 1))}
    threads = [threading.Thread(target=read_to_its_end, args=item) for item in taken.items()]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == ["first", "second", "third"]


def test_a_key_is_asked_for(adapters: list[str]) -> None:
    with Served(adapters[:1], key=KEY) as server:
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            status, told = server.post({}, **wrong)
            assert (status, told["error"]["code"]) == (401, "invalid_api_key")
        assert server.client.models.list().data[0].id == server.models[0]
        create: Any = server.client.chat.completions.create
        with pytest.raises(openai.BadRequestError, match="No encoder is served for the task 'classification'"):
            create(model="auto", messages=HELLO, extra_body={"task": "classification"})
        assert server.end() == 0


def test_an_answer_ends_when_its_client_goes_away_and_at_sigterm(base: Path, tmp_path: Path) -> None:
    ask: dict[str, Any] = {"model": "long", "prompt": "a", "temperature": 0, "max_tokens": 2500}
    with Served([str(with_positions(base, tmp_path / "long", 3000))]) as server:
        create: Any = server.client.completions.create
        began = time.monotonic()
        assert create(**ask).usage.completion_tokens == 2500, "it repeats itself and does not end"
        whole = time.monotonic() - began
        began = time.monotonic()
        for _ in range(20):
            with create(**ask, stream=True) as stream:
                next(iter(stream))
        create(**{**ask, "max_tokens": 1})
        assert time.monotonic() - began < 10 * whole, "twenty were made to their ends"
        stream = iter(create(**ask, stream=True))
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="shutting down"):
            list(stream)
        assert server.process.wait(120) == 0
        assert server.process.stderr and "Traceback" not in server.process.stderr.read()


def test_a_served_model_can_be_the_judge_and_what_it_babbles_is_no_judgement(base: Path, tmp_path: Path) -> None:
    with Served([str(with_positions(base, tmp_path / "judge", 1536))], key=KEY) as server:
        judge = {"endpoint": server.url, "model": "judge", "key_variable": "JUDGE_KEY"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JUDGE_KEY", KEY)
            found = judged(Judge.model_validate(judge), [Case("double 2", "4", "5", "4")], lambda: None)
            with pytest.raises(UserError, match="answered 404"):
                judged(Judge.model_validate({**judge, "model": "nobody"}), [Case("a", "b", "c", "d")], lambda: None)
        assert found.scores == [None] and len(found.toon) == 4, "both orders, each asked once more"
        assert server.end() == 0


def test_what_cannot_be_served_is_said_before_anything_is_loaded(
    adapters: list[str], base: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    refused = {
        ("--route", "coding=three"): "'coding=three' names no model here",
        ("--key-file", str(tmp_path / "empty")): "holds no key",
        ("--encoder", f"one={base}"): "'one' names two models",
        ("--encoder", f"coder={base}"): "is no encoder (model_type llama)",
        ("--key-file", str(tmp_path / "none")): "cannot be read",
        ("--host", "203.0.113.1"): "cannot be listened on",
    }
    for words, what in refused.items():
        command = [sys.executable, "-P", "-m", "trainer.ship.serve", adapters[0], "--port", "0", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        assert what in done.stderr
