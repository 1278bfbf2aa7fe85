"""A camera that answers every HTTP or RTSP request in one way, and remembers who asked."""

import base64
import threading
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

REASONS = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 500: "Broken"}


class CameraServer(ThreadingTCPServer):
    """Answers with `status`; with 200 also `body`. logins: "USER:PASSWORD" of requests with one.

    needs_login: requests without one get 401.
    """

    daemon_threads = True

    def __init__(self, status=200, body=b"", kind="video/mp2t", *, needs_login=False):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.kind, self.needs_login = status, body, kind, needs_login
        self.logins = []

    @property
    def host(self):
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(StreamRequestHandler):
    def handle(self):
        with suppress(OSError):  # whoever asks may hang up
            self._answer()

    def _answer(self):
        while line := self.rfile.readline():
            protocol = line.split()[-1].decode()
            headers = {}
            while (header := self.rfile.readline().strip()) != b"":
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            login = headers.get("authorization", "").removeprefix("Basic ")
            if login:
                self.server.logins.append(base64.b64decode(login).decode())
            refused = self.server.needs_login and not login
            status = 401 if refused else self.server.status
            body = self.server.body if status == 200 else b""
            answer = [f"{protocol} {status} {REASONS[status]}", f"Content-Type: {self.server.kind}"]
            if status == 401:
                answer.append('WWW-Authenticate: Basic realm="camera"')
            if protocol.startswith("RTSP"):
                answer += [f"CSeq: {headers['cseq']}", "Content-Length: 0"]
            elif not self.server.kind.startswith("multipart"):
                answer.append(f"Content-Length: {len(body)}")
            self.wfile.write(("\r\n".join(answer) + "\r\n\r\n").encode() + body)
            if not protocol.startswith("RTSP"):
                return


@contextmanager
def camera_server(*given, **options):
    with CameraServer(*given, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
