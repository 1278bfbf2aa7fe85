"""An RTSP server of Debian's GStreamer, in a process of its own, for whoever connects.

This file is also what runs there: `/usr/bin/python3 rtsp_server.py PORT` says the port and serves.
"""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

PYTHON = "/usr/bin/python3"  # the one that has Debian's bindings
_PIPELINE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=96,framerate=30/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! "
    "rtph264pay name=pay0 config-interval=1 )"
)


class RtspServer:
    """A moving ball at 30 frames a second, H.264, as long as it is not stopped."""

    def __init__(self):
        self.port = 0
        self._process = None
        self.start()

    @property
    def url(self):
        return f"rtsp://127.0.0.1:{self.port}/ball"

    def start(self):
        self._process = subprocess.Popen(
            [PYTHON, __file__, str(self.port)], stdout=subprocess.PIPE, text=True
        )
        self.port = int(self._process.stdout.readline())

    def stop(self):
        """As a camera that loses its power."""
        self._process.kill()
        self._process.communicate()


def missing():
    """Why there is no such server here, "" if there is."""
    if not Path(PYTHON).exists():
        return f"no {PYTHON}"
    done = subprocess.run([PYTHON, __file__], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@contextmanager
def rtsp_server():
    server = RtspServer()
    try:
        yield server
    finally:
        server.stop()


def _serve(port):
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    lacking = [name for name in ("x264enc", "rtph264pay") if not Gst.ElementFactory.find(name)]
    if lacking:
        sys.exit(f"GStreamer has no {' and no '.join(lacking)}")
    if port is None:
        return
    server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory(launch=_PIPELINE, shared=True)
    server.get_mount_points().add_factory("/ball", factory)
    server.attach(None)
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    _serve(sys.argv[1] if len(sys.argv) > 1 else None)
