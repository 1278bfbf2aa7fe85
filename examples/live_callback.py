"""Call a function with every result of a camera or a stream.

    python examples/live_callback.py rtsp://camera/stream 60

A video file is replayed at its own pace. The second argument ends the run after so many seconds;
without it the run goes on until the source ends or Ctrl-C.
"""

import sys

import maskstream
from maskstream.pipeline.live.session import CallbackSink, LiveResult


def on_result(live: LiveResult) -> None:
    """Called in the writer's thread: be quick, newer frames do not wait for this one."""
    sizes = {found.id: found.area for found in live.result.objects}
    print(f"{live.result.pts_s} s: pixels by object {sizes}")


def main(source: str, seconds: str | None = None) -> None:
    """Run until the source or the time ends."""
    session = maskstream.LiveSession.open(source)
    status = session.run(
        lambda info: [CallbackSink(on_result)],
        duration_s=None if seconds is None else float(seconds),
    )
    print(f"{status.frames} frames, {status.drops} dropped, latency {status.latency_ms}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped")
