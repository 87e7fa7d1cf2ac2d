"""An HTTP proxy before a server that fails every third request, in three ways by turns."""

import http.client
import itertools
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

FAULTS = ("500", "503", "drop")
EVERY = 3
HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}


class FaultyProxy:
    """Forwards to 127.0.0.1:`port`; a context manager.

    Attributes:
        url: where clients ask.
        asked: requests so far.
        failed: those that were answered by a fault, by its name.
    """

    def __init__(self, port: int) -> None:
        self.failed = dict.fromkeys(FAULTS, 0)
        self.asked = 0
        self._lock = threading.Lock()
        self._faults = itertools.cycle(FAULTS)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_request(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                match proxy.next_fault():
                    case "drop":  # in the middle of nothing: neither status nor goodbye
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                    case None:
                        self._forward(body)
                    case status:
                        self._answer(int(status), [], b"")

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request

            def _forward(self, body: bytes) -> None:
                # Headers as they are, Host too: they are signed.
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                self._answer(answer.status, answer.getheaders(), answer.read())
                connection.close()

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response_only(status)
                of_a_head = self.command == "HEAD" and status == http.HTTPStatus.OK
                for name, value in headers:
                    if name.lower() not in HOP_BY_HOP and (of_a_head or name.lower() != "content-length"):
                        self.send_header(name, value)
                if not of_a_head:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def next_fault(self) -> str | None:
        """The fault of a request; None for two of three."""
        with self._lock:
            self.asked += 1
            if self.asked % EVERY:
                return None
            fault = next(self._faults)
            self.failed[fault] += 1
            return fault

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
