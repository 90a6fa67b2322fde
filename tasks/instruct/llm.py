"""The writer that asks a language model, behind any endpoint that speaks OpenAI's chat protocol.

Two questions, as RoboHorizon asks them (arXiv 2501.06605): a plan of motions in words, then the program. What a check
complains of goes back to the model. An answer is data: limited in size, read by `Program.parse`, never run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from robo.core.errors import InstructionError, MissingDependencyError, ProgramError, WriterError
from robo.core.files import make_parent, read_text, room_for
from tasks.instruct.program import LONGEST, Program
from tasks.tabletop.base import TabletopTask
from tasks.tabletop.open_drawer import OpenDrawer
from tasks.tabletop.pick_and_place import PickAndPlace

URL, MODEL, KEY = "ROBO_LLM_URL", "ROBO_LLM_MODEL", "ROBO_LLM_KEY"
"""Environment variables: the endpoint (``http://127.0.0.1:8000/v1``), the model's name there, a key if it needs one."""
ROUNDS = 4
"""So many programs a model may propose."""
MOST = 60_000
"""Longest answer that is read [characters]."""
RECORD = "exchanges.jsonl"
"""In the folder of a record: one question and its answer a line."""
SHOWN, COMPLAINTS = 300, 20
"""Characters of a server's message, and complaints, that are passed on."""

Message = dict[str, str]
Check = Callable[[Program], list[str]]
"""What is wrong with a program that fits its task, one line each."""

PLANNER = """\
You plan the motions of a robot arm with a parallel gripper. Given a scene and an instruction, write a numbered plan,
one simple motion a line (approach, grasp, lift, carry, place, let go, ...), each with what is true in the scene once it
is done, in words and by the scene's signals. Plan what the instruction asks for and what that needs, nothing more."""
CODER = """\
You write staged rewards for a robot arm as a JSON program. Its keys:
- instruction: the instruction, as it was given.
- stages: in order, each with "name" (unique), "condition" (state formula: the stage is reached when it holds),
  "distance" (expression, 0 or more, that shrinks to 0 on the way to the condition) and "scale" (a number, 0.1 if not
  given: the distance from which on there is most to gain).
- goal: state formula that holds when all is done; the condition of the last stage is usually the same.
- mission: formula in time. F[0,t](p): p holds at some time up to t seconds. G[0,t](p): p holds all that time. Such as
  "F[0,5](held_n > 0.5) and F[0,10](G[0,0.5](away_m < 0.05))". No window may reach beyond the end of the episode.
- safety: state formula that must hold at every moment besides the task's own; "" for none.
The language, and nothing else: the scene's signals by name, numbers, + - * /, abs(x), sqrt(x), norm(x, ...), min(x, y),
max(x, y), comparisons < > <= >= (there is no ==), and, or, not, parentheses. F and G in the mission only. Quantities
that are added or compared have one unit; a numeric factor converts: off_m + 0.1 * tilt_rad. "held_n > 0.5" means
grasped, "held_n < 0.1" let go. Answer with the JSON program alone."""


class Answer(Protocol):
    """A language model: messages, and the JSON schema of what is wanted (None: plain text), to the text it answers."""

    def __call__(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> str:
        """Answer.

        Raises:
            WriterError: It does not.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Author:
    """Asks a model for a plan, then for the program, and sends complaints back.

    Args:
        answer: The model.
        name: Of it, for messages.
        rounds: So many programs it may propose.
        check: What else is wrong with a program that fits its task.
    """

    answer: Answer
    name: str
    rounds: int = ROUNDS
    check: Check | None = None

    def write(self, task: TabletopTask, instruction: str) -> Program:
        """The program of an instruction.

        Raises:
            InstructionError: There is no instruction, or it is too long.
            WriterError: The model fails, or none of its programs fits; says why the last one does not.
        """
        if not instruction.strip() or len(instruction) > LONGEST:
            raise InstructionError(f"an instruction has 1 to {LONGEST} characters, this one {len(instruction.strip())}")
        scene = describe(task)
        asked = f"{scene}\n\nInstruction: {instruction}"
        plan = self.answer([_says("system", PLANNER), _says("user", asked)], None).strip()
        if not plan:
            raise WriterError(f"{self.name} answered nothing to the question for a plan; try another model")
        messages = [_says("system", CODER), *_example(task), _says("user", f"{asked}\n\nPlan:\n{plan[:MOST]}")]
        complaints: list[str] = []
        for _ in range(self.rounds):
            text = self.answer(messages, Program.model_json_schema())
            program, complaints = self._read(task, text, instruction)
            if program is not None and not complaints:
                return program
            lines = "\n".join(f"- {' '.join(line.split())[: 2 * SHOWN]}" for line in complaints[:COMPLAINTS])
            again = f"That program does not do:\n{lines}\nAnswer with the whole program, corrected, as JSON alone."
            messages = [*messages, _says("assistant", text[: MOST // 10]), _says("user", again)]
        raise WriterError(
            f"{self.name} wrote no program that fits {task.name} in {self.rounds} rounds; of the last one: "
            f"{'; '.join(complaints[:3])[: 2 * SHOWN]}; try a larger model, or --writer grammar"
        )

    def _read(self, task: TabletopTask, text: str, instruction: str) -> tuple[Program | None, list[str]]:
        if len(text) > MOST:
            return None, [f"the answer is longer than {MOST} characters"]
        try:
            program = Program.parse(_json_in(text)).model_copy(update={"instruction": instruction})
        except ProgramError as error:
            return None, list(error.complaints) or [str(error)]
        return program, program.complaints(task) or (self.check(program) if self.check else [])


def describe(task: TabletopTask) -> str:
    """A scene in words: what is in it, what is measured, how long an episode lasts."""
    signals = (
        f"- {name} [{'no unit' if signal.unit == '1' else signal.unit}]: {signal.text}"
        for name, signal in task.signals.items()
    )
    said = (type(task).__doc__ or task.name).partition("\n\n")[0]
    bodies = {"Things that lie about": task.things, "Fixtures": task.fixtures, "Joints": task.joints}
    return "\n".join(
        (
            f"Scene: {' '.join(said.split())}",
            f"Robot: {task.robot.name}, with a gripper.",
            *(f"{kind}: {', '.join(names) or 'none'}." for kind, names in bodies.items()),
            f"An episode lasts {task.horizon_s:g} s, a step {task.ctrl_dt_s:g} s; windows are multiples of a step.",
            "Signals:",
            *signals,
            f"The task's own safety, always added: {task.safety}",
        )
    )


def require(module: str, writer: str) -> None:
    """Refuse a writer whose package is not installed.

    Raises:
        MissingDependencyError: Says which, and how to install it.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingDependencyError(
            f"writer {writer} needs {module}, which is not installed; try: pip install 'robo-stack[language]'"
        )


def _example(task: TabletopTask) -> list[Message]:
    """A scene, an instruction and its program, of another task."""
    other = OpenDrawer() if isinstance(task, PickAndPlace) else PickAndPlace()
    program = Program.of(other)
    asked = f"{describe(other)}\n\nInstruction: {other.instruction}\n\nPlan:\n" + "\n".join(
        f"{i + 1}. {stage.name}: then {stage.condition}" for i, stage in enumerate(program.stages)
    )
    text = json.dumps(program.model_dump(mode="json", exclude_defaults=True))
    return [_says("user", asked), _says("assistant", text)]


def _says(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def _json_in(text: str) -> str:
    """What stands between the first brace and the last: models like to add words and fences."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    return found.group() if found else text


# ---- the endpoint ----------------------------------------------------------------------


class Endpoint:
    """A model behind an endpoint of OpenAI's chat protocol, as an `Answer`.

    Args:
        url: Of the endpoint. Empty: `URL` of the environment.
        model: Its name there. Empty: `MODEL` of the environment.
        stream: Whether to ask for the answer as it is written. A server that answers whole is understood as well.
        connect_s, total_s: Longest to be connected, and to answer one question.
        retries: After a refused connection, too many requests or a fault of the server.

    Raises:
        WriterError: Something is not set; says what.
        MissingDependencyError: The package is not installed.
    """

    def __init__(
        self,
        url: str = "",
        model: str = "",
        *,
        stream: bool = True,
        connect_s: float = 10.0,
        total_s: float = 180.0,
        retries: int = 2,
    ) -> None:
        require("openai", "llm")
        self.url, self.model = url or os.environ.get(URL, ""), model or os.environ.get(MODEL, "")
        missing = [name for name, value in ((URL, self.url), (MODEL, self.model)) if not value]
        if missing:
            raise WriterError(
                f"writer llm needs {' and '.join(missing)} in the environment: where an endpoint of the OpenAI "
                f"protocol is and which model to ask, such as {URL}=http://127.0.0.1:8000/v1 {MODEL}=qwen3-8b "
                f"({KEY} if it asks for a key); --writer grammar needs none"
            )
        import openai

        self._key, self._stream, self._total_s = os.environ.get(KEY, ""), stream, total_s
        self._formats = ["json_schema", "json_object", ""]
        try:
            self._client = openai.OpenAI(
                base_url=self.url,
                api_key=self._key or "none",
                timeout=openai.Timeout(total_s, connect=connect_s),
                max_retries=retries,
            )
        except ValueError as error:
            raise WriterError(f"{URL}={self.url!r} is no address: {error}") from error

    def __call__(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> str:
        """See `Answer`."""
        import openai

        if schema is None:
            return self._ask(messages, {})
        while True:
            try:
                return self._ask(messages, _format(self._formats[0], schema))
            except WriterError as error:
                refused = isinstance(error.__cause__, openai.BadRequestError | openai.UnprocessableEntityError)
                if not refused or len(self._formats) == 1:
                    raise
                self._formats.pop(0)  # it takes no such format, now and for good

    def _ask(self, messages: Sequence[Message], more: Mapping[str, Any]) -> str:
        import openai

        at = f"the model {self.model} at {self.url}"
        until = time.monotonic() + self._total_s
        text = ""
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=self.model, messages=typing.cast(Any, list(messages)), stream=self._stream, **more
            )
            if "text/event-stream" in raw.headers.get("content-type", ""):
                for part in _parts(raw.parse()):
                    text += part
                    if time.monotonic() > until:
                        raise WriterError(f"{at} did not end its answer within {self._total_s:g} s")
                    if len(text) > MOST:
                        break
            else:
                text = _content(json.loads(raw.http_response.read()))
        except openai.APITimeoutError as error:
            raise WriterError(f"{at} did not answer within {self._total_s:g} s; is it busy, or too large?") from error
        except openai.APIConnectionError as error:
            if text:
                raise WriterError(f"{at} broke off after {len(text)} characters; ask again") from error
            raise WriterError(f"no server answers at {self.url}: start it, or set {URL} to where it is") from error
        except openai.APIStatusError as error:
            hint = _HINTS.get(error.status_code, "the server's own log says more")
            raise WriterError(f"{at} refuses ({error.status_code}: {self._said(error)}); {hint}") from error
        except openai.APIError as error:
            raise WriterError(f"{at} failed: {self._said(error)}") from error
        except _transport_errors() as error:
            raise WriterError(f"{at} broke off after {len(text)} characters; ask again") from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise WriterError(f"{at} does not speak the chat protocol: its answer cannot be read") from error
        return text

    def _said(self, error: Exception) -> str:
        """A server's message in one short line, the key not in it."""
        text = " ".join(str(getattr(error, "message", error)).split())
        return (text.replace(self._key, "***") if self._key else text)[:SHOWN]


_HINTS = {
    401: f"set {KEY} to a key it takes",
    403: f"set {KEY} to a key that may use this model",
    404: f"set {MODEL} to a model that is there, and {URL} to the address that ends before /chat/completions",
    429: "wait, or use another endpoint",
}


def _format(kind: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    match kind:
        case "json_schema":
            named = {"name": "program", "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": named}}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
    return {}


def _parts(stream: Any) -> Iterator[str]:
    """The text of an answer, as it comes.

    Raises:
        ValueError: It is none of the protocol.
        WriterError: It stops before its end.
    """
    ended, some = False, 0
    for chunk in stream:
        for choice in chunk.choices or ():
            if part := choice.delta.content:
                some += len(part)
                yield part
            ended = ended or bool(choice.finish_reason)
    if not ended and not some:
        raise ValueError("no choice in the stream")
    if not ended:
        raise WriterError(f"the model broke off after {some} characters: the stream has no end; ask again")


def _content(body: Any) -> str:
    text = body["choices"][0]["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("content is no text")
    return text


def _transport_errors() -> type[Exception]:
    """What a broken connection raises in the middle of a stream: an error of the transport that openai is built on."""
    import openai

    name = openai.Timeout.__mro__[-2].__module__.partition(".")[0]  # httpx, or what later versions use
    return getattr(sys.modules[name], "HTTPError", OSError)


# ---- the record ------------------------------------------------------------------------


class Recorder:
    """Another answer, each exchange of which is written down. No key is: it is no part of a question.

    Args:
        answer: Who is asked.
        model: Its name, for the record.
        folder: Where `RECORD` goes.
    """

    def __init__(self, answer: Answer, model: str, folder: str | Path) -> None:
        self._answer, self._model, self._path = answer, model, Path(folder) / RECORD
        make_parent(self._path)

    def __call__(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> str:
        """See `Answer`."""
        text = self._answer(messages, schema)
        line = {
            "key": key(messages, schema),
            "model": self._model,
            "messages": list(messages),
            "schema": schema,
            "answer": text,
        }
        with room_for(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return text


class Replay:
    """The answers of a record, without a server.

    Args:
        path: A folder that `Recorder` wrote, or its file.

    Raises:
        WriterError: There is no record, or it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path) / RECORD if Path(path).is_dir() else Path(path)
        if not self.path.is_file():
            raise WriterError(f"no record at {path}: it is a folder that --record FOLDER wrote, with {RECORD} in it")
        self._answers: dict[str, str] = {}
        for number, line in enumerate(read_text(self.path).splitlines(), start=1):
            try:
                said = json.loads(line)
                self._answers[str(said["key"])] = _text(said["answer"])
            except (ValueError, TypeError, LookupError) as error:
                raise WriterError(f"{self.path}, line {number}, is no exchange: record it anew") from error

    def __call__(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> str:
        """See `Answer`."""
        wanted = key(messages, schema)
        if wanted not in self._answers:
            raise WriterError(
                f"{self.path} has no answer to this question ({wanted[:12]}) among its {len(self._answers)}: it was "
                f"recorded for another task, instruction or version; ask again with --record {self.path.parent}"
            )
        return self._answers[wanted]


def key(messages: Sequence[Message], schema: Mapping[str, Any] | None) -> str:
    """What a question is found by in a record: a hash of all that the model is told."""
    text = json.dumps([list(messages), schema], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
