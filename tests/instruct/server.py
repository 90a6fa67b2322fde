"""A server of OpenAI's chat protocol on 127.0.0.1, over real sockets: it answers what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server does with one request.

    Attributes:
        text: The model's words.
        status: Other than 200: an error, `text` its message.
        whole: Answers in one piece although a stream was asked for.
        cut: Ends half way: closes the ``connection``, or the ``stream`` without a last chunk that says so.
        raw: Sends this body in place of the protocol's.
        wait: Holds the answer back until the server is closed.
        endless: Goes on streaming blanks until then.
    """

    text: str = ""
    status: int = 200
    whole: bool = False
    cut: str = ""
    raw: bytes = b""
    wait: bool = False
    endless: bool = False


@dataclass
class Server:
    """Replies in order, the last one again and again; what was asked is kept."""

    replies: list[Reply]
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    refuses: tuple[str, ...] = ()
    """Kinds of response_format that it does not know."""
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def next(self) -> Reply:
        """The reply to the request that came last."""
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextmanager
def serving(*replies: Reply | str, refuses: tuple[str, ...] = ()) -> Iterator[Server]:
    """A running server; texts are what the model says."""
    server = Server([r if isinstance(r, Reply) else Reply(text=r) for r in replies], refuses=refuses)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            kind = body.get("response_format", {}).get("type", "")
            if kind in server.refuses:
                return self.send(400, error(f"response_format {kind} is not supported"))
            server.asked.append(body)
            server.keys.append(self.headers.get("authorization", ""))
            reply = server.next()
            if reply.wait:
                server.closing.wait(30)
                self.close_connection = True
                return None
            if not self.path.endswith("/chat/completions"):
                return self.send(404, error(f"no such path {self.path}"))
            if reply.raw:
                return self.send(200, reply.raw, "text/html")
            if reply.status != 200:
                return self.send(reply.status, error(reply.text))
            if body.get("stream") and not reply.whole:
                return self.stream(reply)
            message = {"role": "assistant", "content": reply.text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return self.send(200, json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode())

        def send(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def stream(self, reply: Reply) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            size = max(1, len(reply.text) // 7)
            pieces = [reply.text[i : i + size] for i in range(0, len(reply.text), size)]
            try:
                while reply.endless and not server.closing.wait(0.05):
                    self.event({"index": 0, "delta": {"content": " "}, "finish_reason": None})
                for piece in pieces[: len(pieces) // 2] if reply.cut else pieces:
                    self.event({"index": 0, "delta": {"content": piece}, "finish_reason": None})
                if reply.cut:
                    if reply.cut == "stream":
                        self.chunk(b"")
                    self.close_connection = True
                    return
                self.event({"index": 0, "delta": {}, "finish_reason": "stop"})
                self.chunk(b"data: [DONE]\n\n")
                self.chunk(b"")
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client has heard enough

        def event(self, choice: dict[str, Any]) -> None:
            data = {"id": "1", "object": "chat.completion.chunk", "choices": [choice]}
            self.chunk(b"data: " + json.dumps(data).encode() + b"\n\n")

        def chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()


def error(text: str) -> bytes:
    """An error as the protocol has it."""
    return json.dumps({"error": {"message": text, "type": "error", "code": None}}).encode()
