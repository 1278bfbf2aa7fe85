"""A page that is really served, in a browser that really shows it."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskstream.pipeline.store import MaskStore

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
)
ROOT = Path(__file__).parents[2]


def why_not() -> str | None:
    """Why no browser test can run here, None if it can."""
    for module in ("playwright", "gradio"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed (make setup)"
    return None if CHROMIUM.exists() else f"there is no {CHROMIUM} (apt-get install chromium)"


@contextmanager
def browser(*flags: str) -> Iterator:
    """The system's Chromium, without a window; flags: further ones."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS, *flags])
        try:
            yield chromium
        finally:
            chromium.close()


def center(truth: np.ndarray, shape: int) -> tuple[int, int]:
    """A pixel in the middle of a shape, x and y; truth: numbers of shapes [H, W]."""
    rows, columns = np.nonzero(truth == shape)
    return int(columns.mean()), int(rows.mean())


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks, bool [H, W]."""
    return float((one & other).sum() / max(1, (one | other).sum()))


class Tab:
    """One tab with the page in it; what goes wrong in its script fails the test at the end.

    watched: note every request. Not for a page that sends its camera's images: Playwright hands the
    body of each to the test, which on a busy machine is never done with them.
    """

    def __init__(self, chromium, url: str, size=(1280, 800), *, watched=True, **options) -> None:
        self.url = url
        self.errors: list[str] = []
        self.asked: set[str] = set()
        # `bypass_csp`: Playwright's own waiting needs eval, which the page forbids itself.
        self.context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, bypass_csp=True, **options
        )
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        if watched:
            self.page.on("request", lambda request: self.asked.add(request.url))

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, kind, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert self.errors == []
            ours = (self.url, "blob:", "data:")
            assert [url for url in self.asked if not url.startswith(ours)] == []

    def open(self, address: str = "") -> None:
        """Go to the page, and wait for its picture if it is a session's."""
        self.page.goto(self.url + address)
        if "?s=" in address:
            self.wait_shown()

    def open_example(self, name: str) -> None:
        """Open an example from the start screen."""
        self.open()
        self.page.click(f"[data-example={name}]")
        self.wait_shown()

    def wait_shown(self) -> None:
        """Until a frame is shown."""
        self.page.wait_for_function("window.page?.shownFrame !== undefined && !page.busy")

    def run(self, script: str, *arguments: object):
        """Evaluate a script in the page."""
        return self.page.evaluate(script, *arguments)

    def settle(self) -> None:
        """Until everything that was asked for is done and shown."""
        self.page.wait_for_function(
            "page.queue.then(() => page.loading).then(() => !page.busy && !page.again)"
        )

    def screen(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the video lies on the screen (its center)."""
        found = self.run("([x, y]) => page.view.toScreen(x + 0.5, y + 0.5)", [float(x), float(y)])
        return found[0], found[1]

    def click(self, x: float, y: float, button: str = "left") -> None:
        """Click on a pixel of the video and wait for the answer."""
        self.page.mouse.click(*self.screen(x, y), button=button)
        self.settle()

    def touch(self, *steps: list[tuple[float, float]]) -> None:
        """Fingers on the screen that move from step to step, each a place a finger; then lift."""
        driver = self.context.new_cdp_session(self.page)
        for number, places in enumerate(steps):
            points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
            kind = "touchMove" if number else "touchStart"
            driver.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        driver.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        driver.detach()
        self.settle()

    def drag(self, first: tuple[float, float], last: tuple[float, float]) -> None:
        """Press on a pixel of the video, move, let go."""
        self.page.mouse.move(*self.screen(*first))
        self.page.mouse.down()
        self.page.mouse.move(*self.screen(*last), steps=4)
        self.page.mouse.up()
        self.settle()

    def seek(self, frame: int) -> None:
        """Go to a frame."""
        self.run("frame => page.seek(frame)", frame)
        self.page.wait_for_function(f"page.shownFrame === {frame}")

    def track(self) -> None:
        """Track, and wait for the end."""
        self.page.click("#track")
        self.page.wait_for_function("page.running", timeout=10_000)
        self.wait_tracked()

    def wait_tracked(self) -> None:
        """Until no job runs."""
        self.page.wait_for_function("!page.running", timeout=60_000)
        self.settle()

    def exported(self, name: str) -> Path:
        """Export in a format in the dialog, which is open, and download the file."""
        self.page.click(f"[data-format={name}]")
        self.page.click("#export-go")
        self.page.wait_for_selector("#download:visible", timeout=120_000)
        with self.page.expect_download() as got:
            self.page.click("#download")
        return Path(got.value.path())

    def labels(self):
        """What the page has of the masks it shows: width, height and ids by rows."""
        width, height, values = self.run(
            "() => { const m = page.view.masks; return [m.width, m.height, Array.from(m.labels)] }"
        )
        return np.array(values, np.uint8).reshape(height, width)

    def pixel(self, x: float, y: float) -> tuple[int, int, int]:
        """Color of the canvas at a pixel of the video."""
        script = """([x, y]) => new Promise(done => requestAnimationFrame(() => {
          requestAnimationFrame(() => {
            const p = page.view.place(), r = devicePixelRatio, c = page.view.canvas;
            const at = [(p.x + (x + .5) * p.scale) * r, (p.y + (y + .5) * p.scale) * r];
            done(Array.from(c.getContext('2d').getImageData(at[0], at[1], 1, 1).data));
          }) }))"""
        red, green, blue, _ = self.run(script, [x, y])
        return red, green, blue

    def toast(self) -> str:
        """The sentence that is shown."""
        return self.page.wait_for_selector(".toast span").inner_text()

    def wait_toast(self, words: str) -> None:
        """Until a sentence with these words is shown."""
        self.page.wait_for_selector(f".toast:has-text('{words}')")

    @property
    def token(self) -> str:
        """The session's name."""
        return self.run("page.token")


@dataclass(slots=True)
class Server:
    """The command `ui` in a process of its own. sessions: the folder of its sessions."""

    url: str
    sessions: Path
    process: subprocess.Popen[str]

    def begin(self, path: Path) -> str:
        """Open a video by its path; gives the session's name."""
        body = json.dumps({"path": str(path)}).encode()
        wanted = urllib.request.Request(  # noqa: S310
            f"{self.url}api/sessions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(wanted) as answer:  # noqa: S310
            return json.load(answer)["token"]

    def state(self, token: str) -> dict:
        """A session's state, as the page gets it."""
        with urllib.request.urlopen(f"{self.url}api/s/{token}") as answer:  # noqa: S310
            return json.load(answer)

    def store(self, token: str) -> MaskStore:
        """The mask store of a session, as it is on disk."""
        return MaskStore(self.sessions / token / self.state(token)["store"])

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def served(sessions: Path, *options: object, port: int | None = None) -> Iterator[Server]:
    """The page, served at a port of this machine, a free one by default."""
    port = port or free_port()
    command = [sys.executable, "run_pipeline.py", "ui", "--port", port, "--sessions", sessions]
    command += ["--set", "threads.inference=1", "--no-propose", *options]
    with subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            said = process.stdout.readline() if process.stdout else ""
            assert "http://" in said, said
            yield Server(said.split()[4].rstrip("."), sessions, process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def click_times_ms(tab: Tab, points, repeats: int = 1) -> list[float]:
    """From a click to its mask on the screen, milliseconds by the page's clock, each undone."""
    times = []
    for _ in range(repeats):
        for x, y in points:
            tab.run("() => page.select(null)")
            tab.click(x, y)
            times.append(tab.run("page.lastActMs"))
            tab.page.keyboard.press("Control+z")
            tab.settle()
    return times
