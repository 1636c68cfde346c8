"""A headless Chromium, driven by Selenium. Nothing is downloaded: browser and driver must be installed."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import server

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-dev-shm-usage", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
)  # fmt: skip
WIDTH, HEIGHT = 1000, 1000

eventually = partial(server.eventually, pause=0.05)  # each look at the page is work for the browser


def installed() -> tuple[str, str] | None:
    """Return the paths of a browser and its driver."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Page:
    """The server's page in a browser."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, url: str, ready: bool = True) -> None:
        """Load the page, with nothing kept of an earlier one."""
        self.driver.get(f"{url}/health")
        self.run("sessionStorage.clear()")
        self.size(WIDTH, HEIGHT)
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)
        if ready:
            assert eventually(lambda: "ready" in self.data()), self.text("error")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def run_async(self, body: str, *arguments: Any) -> Any:
        """Run the body of an asynchronous function; return what it returns."""
        script = (
            f"const done = arguments[arguments.length - 1]; const given = [...arguments].slice(0, -1);"
            f"(async () => {{ {body} }})().then(done, (error) => done(`failed: ${{error.stack}}`))"
        )
        return self.driver.execute_async_script(script, *arguments)

    def element(self, name: str) -> Any:
        """Return the element with an id, or the first of a selector."""
        selector = name if name[0] in "#.[" or " " in name else f"#{name}"
        return self.driver.find_element("css selector", selector)

    def click(self, name: str) -> None:
        """Click an element."""
        self.element(name).click()

    def write(self, name: str, text: str) -> None:
        """Put a text into a field, as by pasting."""
        self.run("arguments[0].value = arguments[1]", self.element(name), text)

    def press(self, *keys: str) -> None:
        """Press keys together, wherever the focus is."""
        from selenium.webdriver import ActionChains

        actions = ActionChains(self.driver, duration=0)
        for key in keys:
            actions.key_down(key)
        for key in reversed(keys):
            actions.key_up(key)
        actions.perform()

    def text(self, name: str) -> str:
        """Return the text of an element."""
        return self.run("return document.getElementById(arguments[0]).textContent", name)

    def data(self) -> dict[str, str]:
        """Return the page's state and counters."""
        return self.run("return {...document.getElementById('app').dataset}")

    def number(self, name: str) -> float:
        """Return a counter."""
        return float(self.data().get(name, 0))

    def wait_for(self, state: str, seconds: float = 30) -> None:
        """Wait for a state."""
        assert eventually(lambda: self.data()["state"] == state, seconds), (self.data(), self.text("error"))

    def size(self, width: int, height: int) -> None:
        """Set the size of the window's content."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """Prefer "light" or "dark" colours."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def downloaded(self) -> bytes:
        """Return the file that a click on Download saves."""
        for path in self.downloads.iterdir():
            path.unlink()
        self.click("download")
        assert eventually(lambda: any(path.suffix == ".wav" for path in self.downloads.iterdir()))
        (path,) = self.downloads.iterdir()
        return path.read_bytes()

    def errors(self) -> list[str]:
        """Return the errors in the console since the page was loaded, or since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requested(self) -> set[str]:
        """Return the URLs that the page has asked for since it was loaded, or since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
        return {url for url in urls if not url.startswith("data:")}  # the icons of the browser's own controls


@contextmanager
def chromium(downloads: Path) -> Iterator[Page]:
    """Run the browser."""
    from selenium import webdriver

    found = installed()
    assert found is not None
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for option in OPTIONS:
        options.add_argument(option)
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # its sandbox does not run as root
        options.add_argument("--no-sandbox")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    try:
        driver.set_script_timeout(30)
        yield Page(driver, downloads)
    finally:
        driver.quit()
