"""Publishes live results as JSON lines, on standard output or over TCP."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from contextlib import suppress

from maskstream.pipeline.engine.frame_queue import FrameQueue, Policy
from maskstream.pipeline.errors import ConfigError, PromptError, QueueClosedError
from maskstream.pipeline.live.commands import Outcome, PendingCommand, TakeCommand, parse_command
from maskstream.pipeline.live.messages import parse_port, result_message
from maskstream.pipeline.types import Frame, FrameResult

logger = logging.getLogger(__name__)

_LINES_WAITING = 4  # for a slow client; older ones are dropped
_MAX_LINE = 64 * 1024  # bytes of a command
_MAX_CLIENTS = 16


class JsonToOutput:
    """A sink that prints one line of JSON a result."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Print the result."""
        sys.stdout.write(json.dumps(result_message(frame, result)) + "\n")
        sys.stdout.flush()

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Nothing to do."""


class JsonOverTcp:
    """A sink that serves JSON lines at HOST:PORT (or PORT of the loopback) and accepts commands.

    Each line that a client sends is a command; the answer is a line of type "answer". A client that
    reads too slowly misses results, without delaying the others.
    """

    def __init__(self, address: str, take: TakeCommand) -> None:
        """Start the server. Raises `ConfigError` if the address is wrong or taken."""
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        number = parse_port(port, "--publish jsonl:[HOST:]PORT")
        try:
            self._listener = socket.create_server((host or "127.0.0.1", number))
        except OSError as error:
            raise ConfigError(
                f"results cannot be served at {address}: {error.strerror}; choose another port"
            ) from error
        self._take = take
        self._clients: list[_Client] = []
        self._thread = threading.Thread(target=self._accept, name="maskstream-jsonl", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self._listener.getsockname()[1])

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Send the result to all connected clients."""
        self._clients = [client for client in self._clients if client.connected]
        if not self._clients:
            return
        line = json.dumps(result_message(frame, result)).encode() + b"\n"
        for client in self._clients:
            client.send(line)

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Close all connections and stop the server."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for client in self._clients:
            client.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            if len(self._clients) >= _MAX_CLIENTS:
                logger.warning("%s is refused: %d clients are connected", address, _MAX_CLIENTS)
                connection.close()
            else:
                self._clients.append(_Client(connection, self._take))


class _Client:
    """A client connection: one thread sends queued lines, another one reads commands."""

    def __init__(self, connection: socket.socket, take: TakeCommand) -> None:
        self._connection = connection
        self._take = take
        self._lines: FrameQueue[bytes] = FrameQueue(_LINES_WAITING, Policy.DROP_OLDEST)
        self.connected = True
        self._threads = [
            threading.Thread(target=work, name=f"maskstream-jsonl-{name}", daemon=True)
            for name, work in (("send", self._send), ("read", self._read))
        ]
        for thread in self._threads:
            thread.start()

    def send(self, line: bytes) -> None:
        """Queue a line for sending."""
        with suppress(QueueClosedError):
            self._lines.put(line)

    def close(self) -> None:
        """Close the connection and join its threads."""
        self._end()
        for thread in self._threads:
            thread.join()

    def _end(self) -> None:
        self.connected = False
        self._lines.cancel()
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _send(self) -> None:
        with suppress(OSError):
            for line in self._lines:
                self._connection.sendall(line)
        self._end()

    def _read(self) -> None:
        with suppress(OSError, ValueError), self._connection.makefile("rb") as lines:
            while line := lines.readline(_MAX_LINE):
                if not line.strip():
                    continue
                try:
                    self._take(PendingCommand(parse_command(line), self._answer))
                except PromptError as error:
                    self._answer(Outcome(refused=str(error)))
        self._end()

    def _answer(self, outcome: Outcome) -> None:
        self.send(json.dumps(outcome.to_json()).encode() + b"\n")
