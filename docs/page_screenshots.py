"""Screenshots of the page, step by step; `make screenshots` writes them to docs/images."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from maskstream.ui.server.examples import find_example
from tests.support.browser import Tab, browser, click_times_ms, served
from tests.support.gradio_apps import app_served

_SIZE = (1280, 800)


def component(folder: Path, place: Path) -> None:
    """Take the screenshot of the component. place: for temporary files."""
    with (
        app_served(Path("examples/space/app.py"), place / "space") as url,
        browser() as chromium,
        Tab(chromium, url, (1280, 1000), watched=False) as tab,
    ):
        tab.open()
        tab.page.get_by_label("or an example").click()
        tab.page.get_by_role("option", name="Big Buck Bunny").click()
        tab.page.wait_for_selector('text="Click on an object."')
        tab.page.get_by_label("number input for Frame").fill("50")
        tab.page.keyboard.press("Tab")
        tab.page.wait_for_timeout(2000)
        image = tab.page.locator("img[src*='file=']").bounding_box()
        tab.page.mouse.click(
            image["x"] + image["width"] * 450 / 1280, image["y"] + image["height"] * 420 / 720
        )
        tab.page.wait_for_selector("text=Click to correct the mask")
        tab.page.locator("button:text-is('Track')").click()
        tab.page.wait_for_selector("video[src*='file=']", timeout=300_000)
        tab.page.locator("button:text-is('Export')").click()
        tab.page.wait_for_selector("a[href*='Big_Buck']", timeout=60_000)
        tab.page.wait_for_timeout(1000)
        _save(tab, folder / "gradio.png")


def main(folder: Path) -> None:
    """Take all screenshots; needs the clips of the extra `demo`."""

    def snap(tab: Tab, name: str) -> None:
        tab.run("() => { for (const t of document.querySelectorAll('.toast')) t.remove() }")
        tab.page.mouse.move(60, 880)
        tab.page.wait_for_timeout(350)
        take(tab, name)

    def take(tab: Tab, name: str) -> None:
        _save(tab, folder / f"page-{name}.png")

    def name(tab: Tab, text: str) -> None:
        tab.run("n => page.entry({type: 'changed', object: page.selected, name: n})", text)
        tab.settle()

    with (
        tempfile.TemporaryDirectory() as sessions,
        served(Path(sessions), "--allow", find_example("bunny", Path())[0].parent) as server,
        browser() as chromium,
        Tab(chromium, server.url, _SIZE, color_scheme="dark") as tab,
    ):
        tab.open()
        tab.page.wait_for_function("[...document.images].every(i => i.complete)")
        snap(tab, "open")
        tab.open_example("bunny")
        tab.seek(50)
        tab.page.wait_for_timeout(1500)  # the frame is encoded while nobody does anything
        times = click_times_ms(tab, [(450, 420), (190, 430), (990, 350), (700, 520)], 5)
        middle, most = np.median(times), np.percentile(times, 95)
        sys.stdout.write(f"click to mask: median {middle:.0f} ms, p95 {most:.0f} ms\n")
        tab.page.keyboard.press("f")
        tab.page.wait_for_function("page.view.proposals", timeout=60_000)
        tab.page.mouse.move(*tab.screen(450, 400))
        tab.page.wait_for_timeout(300)
        take(tab, "find")
        tab.page.keyboard.press("f")
        tab.click(450, 420)
        snap(tab, "click")
        name(tab, "Bunny")
        tab.run("() => page.newObject()")
        tab.page.keyboard.press("b")
        tab.drag((98, 285), (275, 572))
        tab.page.keyboard.press("a")
        name(tab, "Stones")
        tab.page.click("#track")
        tab.page.wait_for_function("page.state.job?.done > 30", timeout=120_000)
        snap(tab, "tracking")
        tab.wait_tracked()
        tab.seek(84)
        snap(tab, "tracked")
        tab.page.keyboard.press("e")
        tab.drag((180, 470), (240, 540))
        tab.page.keyboard.press("a")
        snap(tab, "correct")
        tab.page.keyboard.press("Control+z")
        tab.settle()
        tab.page.keyboard.press("g")
        snap(tab, "gone")
        tab.page.keyboard.press("Control+z")
        tab.settle()
        tab.page.keyboard.press("2")
        snap(tab, "cutout")
        tab.page.keyboard.press("1")
        tab.page.click("#export")
        tab.page.fill("#feather", "6")
        tab.page.wait_for_function("page.exports.drawn > 1")
        tab.page.wait_for_timeout(1000)
        snap(tab, "export")
        tab.page.keyboard.press("Escape")
        tab.page.click("#theme")
        snap(tab, "light")
        tab.page.set_viewport_size({"width": 834, "height": 1112})
        snap(tab, "tablet")
        tab.page.set_viewport_size({"width": 390, "height": 844})
        snap(tab, "phone")
        tab.page.set_viewport_size({"width": _SIZE[0], "height": _SIZE[1]})
        tab.open()
        tab.page.wait_for_function("[...document.images].every(i => i.complete)")
        snap(tab, "open-light")
        tab.page.click("text=Camera")
        snap(tab, "camera-open-light")
        tab.run("() => localStorage.setItem('maskstream.theme', 'dark')")
        tab.page.reload()
        tab.page.wait_for_selector("#address-form:visible")
        tab.page.fill("#address", str(find_example("bunny", Path())[0]))
        tab.page.click("#address-form button")
        tab.page.wait_for_function("window.camera?.after > 55", timeout=120_000)
        x, y = tab.run("() => camera.view.toScreen(450, 420)")
        tab.page.mouse.click(x, y)
        tab.page.wait_for_selector(".object[data-object='1']")
        tab.page.wait_for_function("camera.view.masks.labels.includes(1)")
        tab.page.wait_for_timeout(700)
        take(tab, "camera")
        sys.stdout.write(f"camera: {tab.run('JSON.stringify(camera.status)')}\n")


def _save(tab: Tab, file: Path) -> None:
    image = Image.open(io.BytesIO(tab.page.screenshot()))
    reduced = image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    reduced.save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as temporary:
        component(Path(sys.argv[1]), Path(temporary))
