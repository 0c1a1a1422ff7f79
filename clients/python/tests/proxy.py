"""A TCP proxy that cuts connections, closes them at once, or answers in the server's place."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes on to a server, but for what the attributes say."""

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.cuts_up: deque[int] = deque()
        """After how many bytes to the server the next connections are cut that have so many."""
        self.cuts_down: deque[int] = deque()
        """The same for bytes from the server."""
        self.answers: deque[bytes] = deque()
        """What the next connections get instead of the server."""
        self.refusals = 0
        """How many connections are closed at once."""
        self.bytes_up = 0
        """Bytes that went to the server."""
        self.bytes_down = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            if self.refusals:
                self.refusals -= 1
                client.close()
            elif self.answers:
                threading.Thread(target=_answer, args=(client, self.answers.popleft()), daemon=True).start()
            else:
                server = socket.create_connection((str(self._server.hostname), int(self._server.port or 80)))
                self._open.append(server)
                for source, sink, is_up in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(source, sink, is_up), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        passed, cuts = 0, self.cuts_up if is_up else self.cuts_down
        try:
            while data := source.recv(1 << 14):
                is_cut = bool(cuts) and passed + len(data) >= cuts[0]
                if is_cut:
                    data = data[: cuts.popleft() - passed]
                sink.sendall(data)
                passed += len(data)
                self.bytes_up += len(data) if is_up else 0
                self.bytes_down += 0 if is_up else len(data)
                if is_cut:
                    break
        except OSError:
            """The other thread has closed it."""
        # Closing alone would not wake the thread that reads from the other end.
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _answer(client: socket.socket, answer: bytes) -> None:
    received = b""
    while b"\r\n\r\n" not in received and (data := client.recv(1 << 14)):
        received += data
    client.sendall(answer)
    client.close()


def refusal(status: int, code: str, *headers: str) -> bytes:
    """An answer with a problem, after which the connection is closed."""
    body = json.dumps({"type": f"urn:engraft:problem:{code}", "title": "Later", "status": status, "code": code})
    lines = [f"HTTP/1.1 {status} Refused", "Content-Type: application/problem+json", "Connection: close", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()
