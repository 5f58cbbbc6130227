"""Headless Chromium, and what a test asks of a page in it."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from absent import missing
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

BROWSERS, DRIVERS = ("chromium", "google-chrome", "chrome"), ("chromedriver",)
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",  # WebGL on the CPU
    "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
)
DESKTOP, PHONE = (1280, 1000), (390, 844)
SECONDS = 30


@contextmanager
def opened(profile: Path) -> Iterator[Browser]:
    """The browser with an empty profile; skips the test where there is none."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = next(filter(None, map(shutil.which, DRIVERS)), None)
    if browser is None or driver is None:
        missing("Chromium and its driver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Browser(page)
    finally:
        page.quit()


class Browser:
    """One page at a time. Elements are named by their ids."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, size: tuple[int, int] = DESKTOP, **media: str) -> None:
        """A fresh page of that width and height, with media features like ``prefers_reduced_motion``."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(url)

    def __getitem__(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def script(self, source: str, *arguments: Any) -> Any:
        return self.driver.execute_script(source, *arguments)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Until the condition holds; what it gives then."""
        return WebDriverWait(self.driver, SECONDS, 0.05).until(lambda _: condition(), f"{what}: {self.said()}")

    def said(self) -> dict[str, str]:
        return {name: self[name].text for name in ("status", "error")}

    def give(self, path: Path) -> None:
        """An image through the file chooser, and wait for its mesh."""
        self["file"].send_keys(str(path))
        self.wait(lambda: f"The mesh of {path.name} is there." == self["status"].text, "the mesh does not come")

    def change(self, slider: str, keys: Sequence[str]) -> None:
        """Press keys on a slider, and wait for another picture."""
        before = self["picture"].get_attribute("src")
        self[slider].send_keys(*keys)
        self.wait(lambda: self["picture"].get_attribute("src") != before, f"{slider} does not change the picture")
        self.settle()

    def press(self, *keys: str) -> None:
        """On whatever has the focus."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def settle(self) -> None:
        """Until the picture is that of the sliders."""
        self.wait(
            lambda: self.script("return arguments[0].complete && arguments[0].naturalWidth > 0", self["picture"]),
            "the picture is not there",
        )

    def bytes_of(self, element: str, attribute: str) -> bytes:
        """What a blob: address of an element holds."""
        content = self.driver.execute_async_script(
            """const [element, attribute, done] = arguments;
            fetch(element[attribute]).then((answer) => answer.blob()).then((blob) => {
              const reader = new FileReader();
              reader.onload = () => done(reader.result);
              reader.readAsDataURL(blob);
            }, (error) => done("," + btoa(error)));""",
            self[element],
            attribute,
        )
        return base64.b64decode(content.partition(",")[2])

    def picture(self) -> np.ndarray:
        """The service's picture, uint8 [H, W, 3]."""
        return np.asarray(Image.open(io.BytesIO(self.bytes_of("picture", "src"))).convert("RGB"))

    def view(self) -> np.ndarray:
        """The 3D view as it is on the screen, uint8 [H, W, 3], without its border."""
        image = Image.open(io.BytesIO(self["view"].screenshot_as_png)).convert("RGB")
        return np.asarray(image)[12:-12, 12:-12]

    def log(self) -> list[str]:
        """Errors and warnings of the page since it was opened."""
        return [f"{entry['level']} {entry['message']}" for entry in self.driver.get_log("browser")]

    def screenshot(self, path: Path) -> None:
        """All of the page, also what is below."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))
