"""Publishes live results as JSON lines, on standard output or over TCP."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.commands import CommandIntake, Outcome, TakeCommand
from maskstream.pipeline.live.endpoints import Endpoint
from maskstream.pipeline.live.messages import of_camera, result_message
from maskstream.pipeline.types import Frame, FrameResult

logger = logging.getLogger(__name__)

_RESULTS_WAITING = 4  # for a slow client; older ones are dropped
_ANSWERS_WAITING = 1024  # of a client that sends and does not read; then it is disconnected
_MAX_LINE = 32 * 1024  # bytes that are read as one command, which is refused if it has as many
_LAST_ANSWERS_S = 0.2  # for a client to take them when the run ends
_MAX_CLIENTS = 16


class JsonToOutput:
    """A sink that prints one line of JSON a result. camera: its name, in every line if not ""."""

    def __init__(self, camera: str = "") -> None:
        self._camera = camera

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Print the result."""
        line = json.dumps(of_camera(self._camera, result_message(frame, result)))
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Nothing to do."""


class JsonOverTcp:
    """A sink that serves JSON lines at an endpoint and accepts commands.

    camera: its name, in every line if it is not "". Each line that a client sends is a command; the
    answer is a line of type "answer". A client that reads too slowly misses results, without
    delaying the others.
    """

    def __init__(self, endpoint: Endpoint, take: TakeCommand, camera: str = "") -> None:
        """Start the server. Raises `ConfigError` if the endpoint is taken."""
        try:
            self._listener = socket.create_server(
                (endpoint.host, endpoint.port), family=endpoint.family
            )
        except OSError as error:
            raise ConfigError(
                f"results cannot be served at {endpoint}: {error.strerror}; choose another port"
            ) from error
        self._take = take
        self._camera = camera
        self._clients: set[_Client] = set()
        self._lock = threading.Lock()  # for the clients, which join and leave in other threads
        self._thread = threading.Thread(target=self._accept, name="maskstream-jsonl", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self._listener.getsockname()[1])

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Send the result to all connected clients."""
        clients = self._joined()
        if not clients:
            return
        line = json.dumps(of_camera(self._camera, result_message(frame, result))).encode() + b"\n"
        for client in clients:
            client.send_result(line)

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Close all connections and stop the server."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for client in self._joined():
            client.close()

    def _joined(self) -> list[_Client]:
        with self._lock:
            return list(self._clients)

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            with self._lock:
                has_room = len(self._clients) < _MAX_CLIENTS
                if has_room:
                    client = _Client(connection, CommandIntake(self._take), self._leave)
                    self._clients.add(client)
            if has_room:
                client.start()
            else:
                logger.warning("%s is refused: %d clients are connected", address, _MAX_CLIENTS)
                connection.close()

    def _leave(self, client: _Client) -> None:
        with self._lock:
            self._clients.discard(client)


class _Client:
    """A client connection: one thread sends queued lines, another one reads commands.

    leave: called when the connection has ended.
    """

    def __init__(
        self,
        connection: socket.socket,
        intake: CommandIntake,
        leave: Callable[[_Client], None],
    ) -> None:
        self._connection = connection
        self._intake = intake
        self._leave = leave
        self._outbox = _Outbox()
        self._threads = [
            threading.Thread(target=work, name=f"maskstream-jsonl-{name}", daemon=True)
            for name, work in (("send", self._send), ("read", self._read))
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def send_result(self, line: bytes) -> None:
        """Queue a result; older ones are dropped if the client is slow."""
        self._outbox.add_result(line)

    def close(self) -> None:
        """Send the answers that wait, close the connection and join its threads."""
        self._outbox.close()
        self._threads[0].join(_LAST_ANSWERS_S)
        self._end()
        for thread in self._threads:
            thread.join()

    def _end(self) -> None:
        self._leave(self)
        self._outbox.close()
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _send(self) -> None:
        with suppress(OSError):
            for line in self._outbox:
                self._connection.sendall(line)
        self._end()
        self._threads[1].join()  # which still reads from the connection
        self._connection.close()

    def _read(self) -> None:
        with suppress(OSError), self._connection.makefile("rb") as lines:
            for line in _lines(lines):
                if line.strip():
                    self._intake.receive(line, self._answer)
        self._end()

    def _answer(self, outcome: Outcome) -> None:
        if not self._outbox.add_answer(json.dumps(outcome.to_json()).encode() + b"\n"):
            logger.warning("a client that does not read its answers is disconnected")
            self._end()


def _lines(incoming: BinaryIO) -> Iterator[bytes]:
    """Yield lines; of one that is too long only the beginning."""
    while line := incoming.readline(_MAX_LINE):
        yield line
        while len(line) == _MAX_LINE and not line.endswith(b"\n"):
            line = incoming.readline(_MAX_LINE)


class _Outbox:
    """Lines for one client: its answers, of which none is dropped, and the newest results.

    Iterate to take them; after `close` only the answers that are left.
    """

    def __init__(self) -> None:
        self._answers: deque[bytes] = deque()
        self._results: deque[bytes] = deque(maxlen=_RESULTS_WAITING)
        self._changed = threading.Condition()
        self._closed = False

    def add_result(self, line: bytes) -> None:
        """Add a result, instead of the oldest if there are too many."""
        with self._changed:
            self._results.append(line)
            self._changed.notify_all()

    def add_answer(self, line: bytes) -> bool:
        """Add an answer; False if there are too many."""
        with self._changed:
            if len(self._answers) >= _ANSWERS_WAITING:
                return False
            self._answers.append(line)
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """End the iteration."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._answers or self._results)
                if not self._answers and self._closed:
                    return
                line = self._answers.popleft() if self._answers else self._results.popleft()
            yield line
