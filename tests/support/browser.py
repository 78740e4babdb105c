"""Pages in headless Chromium, as Debian's packages chromium and chromium-driver provide it.

Tests that need it are skipped where it is absent, or fail if CCSA_REQUIRE_BROWSER is 1.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

try:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:  # reported where a page is opened
    webdriver = By = Keys = WebDriverWait = None

REQUIRED = os.environ.get("CCSA_REQUIRE_BROWSER") == "1"


def _missing():
    """Return why no browser is available, or an empty string."""
    programs = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if programs:
        return f"{' and '.join(programs)} not found: apt-get install chromium chromium-driver"
    return "" if webdriver else "selenium not found: pip install selenium"


def require_browser():
    """Skip the test if there is no browser, or fail if CCSA_REQUIRE_BROWSER is 1."""
    reason = _missing()
    if reason and REQUIRED:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@contextlib.contextmanager
def open_page(path: Path, width: int = 1600, height: int = 900):
    """Yield a Selenium driver that shows a file in a window of the given width in pixels."""
    require_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        # Windows have a least width; the emulated screen of a phone has not.
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        driver.get(Path(path).resolve().as_uri())
        yield driver
    finally:
        driver.quit()


def console_errors(driver):
    """Return the errors and warnings that the page wrote to the console."""
    return [e for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]


def requested_urls(driver):
    """Return the addresses that the page requested, without those embedded in it."""

    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


def wait_for_redraw(driver):
    """Wait until the page has drawn what it had been asked to draw."""
    driver.execute_async_script(
        "const done = arguments[0];"
        "requestAnimationFrame(() => requestAnimationFrame(() => done()));"
    )


def hover(driver, canvas, u, v):
    """Move the mouse to a point of a canvas, from 0 to 1, and wait until the page has drawn."""
    box = driver.execute_script(
        "arguments[0].scrollIntoView({block: 'center'});"
        "const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width, b.height]",
        canvas,
    )
    event = {"type": "mouseMoved", "x": box[0] + u * box[2], "y": box[1] + v * box[3]}
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    wait_for_redraw(driver)
