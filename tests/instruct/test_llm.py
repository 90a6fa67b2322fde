"""The writer that asks a language model, against a real server of the protocol."""

from __future__ import annotations

import json
import socket

import pytest

from robo.core.errors import InstructionError, WriterError
from tasks.instruct.llm import MOST, RECORD, Author, Endpoint, Replay
from tasks.instruct.program import Program
from tasks.instruct.writers import open_writer
from tasks.tabletop.put_item_in_drawer import PutItemInDrawer
from tests.instruct.server import Reply, Server, serving

TASK = PutItemInDrawer()
SAID = "open the drawer"
PLAN = "1. grip the handle: handle_m is small\n2. pull: opened_m grows beyond 0.1"
PROGRAM = {
    "instruction": SAID,
    "stages": [
        {"name": "grip", "condition": "handle_m < 0.02", "distance": "handle_m"},
        {"name": "pull", "condition": "opened_m > 0.1", "distance": "max(0.1 - opened_m, 0)"},
    ],
    "mission": "F[0,7](opened_m > 0.1)",
    "goal": "opened_m > 0.1",
}
GOOD = json.dumps(PROGRAM)
BAD = json.dumps(PROGRAM | {"goal": "opend_m > 0.1"})
KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name, value in (("NO_PROXY", "127.0.0.1"), ("ROBO_LLM_KEY", KEY), ("ROBO_LLM_MODEL", "tiny")):
        monkeypatch.setenv(name, value)


def author(server: Server, **more) -> Author:
    settings = {"retries": 0, "total_s": 20.0, **more}
    return Author(answer=Endpoint(server.url, "tiny", **settings), name="the model tiny")


def refused(server: Server, **more) -> str:
    """The one line a writer fails with; the key is not in it."""
    with pytest.raises(WriterError) as error:
        author(server, **more).write(TASK, SAID)
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_a_plan_is_asked_for_and_then_a_program(stream, whole):
    with serving(Reply(PLAN, whole=whole), Reply(f"Here it is:\n```json\n{GOOD}\n```", whole=whole)) as server:
        program = author(server, stream=stream).write(TASK, SAID)
    assert program == Program.parse(GOOD)
    assert program.apply(TASK).goal == "opened_m > 0.1"
    first, second = server.asked
    assert "response_format" not in first
    assert second["response_format"]["json_schema"]["schema"] == Program.model_json_schema()
    told = second["messages"][-1]["content"]
    assert PLAN in told and SAID in told
    for name, signal in TASK.signals.items():
        assert f"{name} [" in told and signal.text in told
    own = [stage.condition for stage in TASK.stages] + [TASK.goal]
    everything = "\n".join(message["content"] for message in second["messages"])
    assert not [text for text in own[:2] if text in everything], "the task's own stages are not given away"
    assert server.keys == [f"Bearer {KEY}"] * 2


def test_complaints_go_back_and_are_mended():
    def check(program: Program) -> list[str]:
        return [] if len(program.stages) == 2 else ["the reward pays for standing still"]

    short = json.dumps(PROGRAM | {"stages": PROGRAM["stages"][1:]})
    with serving(PLAN, BAD, short, GOOD) as server:
        writer = author(server)
        program = Author(answer=writer.answer, name="tiny", check=check).write(TASK, SAID)
    assert len(program.stages) == 2
    _, _, second, third = server.asked
    assert "opend_m" in second["messages"][-1]["content"] and "opened_m" in second["messages"][-1]["content"]
    assert second["messages"][-2] == {"role": "assistant", "content": BAD}
    assert "the reward pays for standing still" in third["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("refuses", "kind"), [(("json_schema",), "json_object"), (("json_schema", "json_object"), None)]
)
def test_a_server_that_takes_no_schema_is_asked_without(refuses, kind):
    with serving(PLAN, BAD, GOOD, refuses=refuses) as server:
        program = author(server).write(TASK, SAID)
    assert program.goal == "opened_m > 0.1"
    assert [body.get("response_format", {}).get("type") for body in server.asked[1:]] == [kind, kind]


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "set ROBO_LLM_KEY"), (404, "set ROBO_LLM_MODEL"), (429, "wait"), (500, "500"), (400, "400")],
)
def test_a_server_that_refuses(status, message):
    with serving(Reply(f"no, {KEY}!", status=status)) as server:
        said = refused(server)
    assert message in said and "no, ***!" in said


def test_a_fault_that_passes_is_tried_again():
    with serving(Reply("busy", status=500), PLAN, GOOD) as server:
        assert author(server, retries=2).write(TASK, SAID).goal == "opened_m > 0.1"


def test_no_server():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        assert f"no server answers at {url}" in refused(Server([], url=url))


def test_a_server_that_does_not_answer_in_time():
    with serving(Reply(wait=True)) as server:
        assert "did not answer within 0.3 s" in refused(server, total_s=0.3)
    with serving(Reply(endless=True)) as server:
        assert "did not end its answer within 0.3 s" in refused(server, total_s=0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I am sorry, I cannot do that.", "a program is"),
        ('{"answer": 42}', "stages: field required"),
        ("[1, 2, 3]", "a program is a mapping"),
        ("import os; os.system('touch owned')", "a program is"),
        ('!!python/object/apply:os.system ["touch owned"]', "a program is"),
        (json.dumps(PROGRAM | {"goal": "__import__('os').system('touch owned')"}), "goal"),
        (json.dumps(PROGRAM | {"goal": "F[0,2](opened_m > 0.1)"}), "one moment only"),
        (json.dumps(PROGRAM | {"mission": "F[0,700](opened_m > 0.1)"}), "the episode lasts 18 s"),
        ("x" * 5_000_000, f"longer than {MOST} characters"),
        ("", "a program is a mapping"),
    ],
)
def test_answers_that_are_no_program(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    with serving(PLAN, text) as server:
        said = refused(server)
    assert "in 4 rounds" in said and message in said
    assert len(server.asked) == 5
    assert sum(len(m["content"]) for m in server.asked[-1]["messages"]) < 6 * MOST, "what is too long is not sent back"
    assert not (tmp_path / "owned").exists()


def test_answers_that_are_not_the_protocol():
    with serving(Reply(raw=b"<html>welcome</html>")) as server:
        assert "does not speak the chat protocol" in refused(server)


@pytest.mark.parametrize("cut", ["connection", "stream"])
def test_an_answer_that_is_cut_off(cut):
    with serving(PLAN, Reply(GOOD, cut=cut)) as server:
        assert "broke off after" in refused(server)


@pytest.mark.parametrize("instruction", ["", "  \n", "open " * 1000])
def test_no_instruction(instruction):
    with serving(PLAN, GOOD) as server, pytest.raises(InstructionError, match="1 to 2000 characters"):
        author(server).write(TASK, instruction)
    assert not server.asked


def test_what_was_recorded_is_replayed_without_a_server(tmp_path, monkeypatch):
    with serving(PLAN, BAD, GOOD) as server:
        monkeypatch.setenv("ROBO_LLM_URL", server.url)
        program = open_writer("llm", record=tmp_path / "talk").write(TASK, SAID)
    record = (tmp_path / "talk" / RECORD).read_text()
    assert KEY not in record
    lines = [json.loads(line) for line in record.splitlines()]
    assert [line["answer"] for line in lines] == [PLAN, BAD, GOOD]
    assert [line["messages"] for line in lines] == [body["messages"] for body in server.asked]
    monkeypatch.delenv("ROBO_LLM_URL")
    replayed = open_writer(f"replay:{tmp_path / 'talk'}")
    assert replayed.write(TASK, SAID) == program
    with pytest.raises(WriterError, match=r"no answer to this question.* among its 3.* --record"):
        replayed.write(TASK, "put the block into the drawer")
    (tmp_path / "talk" / RECORD).write_text(record + '{"key": 3')
    with pytest.raises(WriterError, match="line 4, is no exchange"):
        Replay(tmp_path / "talk")
    with pytest.raises(WriterError, match="no record at"):
        Replay(tmp_path / "none")


def test_nothing_is_set(monkeypatch):
    monkeypatch.delenv("ROBO_LLM_MODEL")
    with pytest.raises(WriterError, match="needs ROBO_LLM_URL and ROBO_LLM_MODEL in the environment"):
        open_writer("llm")
