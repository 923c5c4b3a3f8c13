"""The page in a real browser, where one is installed with its driver; .ci/run does so on Debian."""

import shutil
import time
from contextlib import ExitStack, closing

import pytest
from paging import HOSTILE, KEY, ManyRuns, Scan, served

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromium-driver are not installed")
# It talks to nobody but the page.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
FIRST_PAINT = "return performance.getEntriesByName('first-paint')[0]?.startTime ?? null"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}", "--window-size=1300,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def scan(tmp_path):
    """A scan of ten points so far."""
    scan = Scan(tmp_path, sample_name=HOSTILE)
    scan.take(10)
    with closing(scan.file):
        yield scan


@pytest.fixture
def page(browser, scan):
    """The page of that scan, open; and the port."""
    with closing(ManyRuns(lambda: [scan.writer.directory])) as watched, served(watched) as port:
        browser.get(f"http://127.0.0.1:{port}/filestore?api_key={KEY}")
        yield port
        assert browser.get_log("browser") == []
        assert browser.title != "broken"
        browser.get("about:blank")


def wait(browser, script, wanted, seconds=20):
    """Wait until a script has an answer."""
    until = time.monotonic() + seconds
    while (found := browser.execute_script(f"return {script}")) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    assert found == wanted


def text(selector):
    """A script that says what is shown."""
    return f"document.querySelector({selector!r})?.textContent"


def press(browser, key):
    """Press a key."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(key).perform()


ROW = "document.getElementById('frame').dataset.row"


def test_fills_while_a_scan_runs(browser, page, scan):
    """Frames, counts and curves come as the scan goes on, without a reload; what others wrote is text and no more."""
    wait(browser, ROW, "9")
    assert browser.execute_script(FIRST_PAINT) < 10_000
    wait(browser, text("#title"), f"scan 7 · scan · {HOSTILE[:200]}")
    assert browser.execute_script("return document.querySelectorAll('#title img, #title script').length") == 0
    wait(browser, text("#counts div:nth-child(3) b"), "10")
    scan.take(3)
    wait(browser, ROW, "12")
    wait(browser, text("#counts div:nth-child(1) b"), "20")
    wait(browser, text("#counts div:nth-child(2) b"), "13")
    wait(browser, text("#plots figure b"), "20.571")
    wait(browser, "document.querySelectorAll('#strip img:not([hidden])').length > 3", wanted=True)
    assert browser.execute_script("return document.getElementById('frame').naturalWidth") == scan.size
    drawn = "const c = document.querySelector('#plots canvas'), of = c.getContext('2d')"
    drawn += "; return of.getImageData(0, 0, c.width, c.height).data.some((each) => each > 0)"
    assert browser.execute_script(drawn)
    assert browser.execute_script("return location.search") == ""
    scan.stop()
    wait(browser, "document.querySelector('#title .lamp').className", "lamp fine")


def test_keys(browser, page, scan):
    """Frames are gone through with the keys, which stops the live view, until it is wanted again."""
    from selenium.webdriver.common.keys import Keys

    wait(browser, ROW, "9")
    press(browser, Keys.ARROW_LEFT)
    wait(browser, ROW, "8")
    scan.take()
    press(browser, Keys.HOME)
    wait(browser, ROW, "0")
    press(browser, "l")
    assert browser.execute_script("return document.getElementById('log').checked")
    press(browser, Keys.END)
    wait(browser, ROW, "10")
    press(browser, "c")
    assert browser.execute_script("return document.getElementById('map').value") == "sea"


def test_two_thousand_runs(browser, page):
    """A list of 2,000 is gone through to its end, of which what is in sight is there; one is opened by keys alone."""
    from selenium.webdriver.common.keys import Keys

    wait(browser, text("#count"), "2,000")
    wait(browser, text("#run-0 span:nth-child(2)"), "5000")
    browser.execute_script("document.getElementById('runs').focus()")
    press(browser, Keys.END)
    wait(browser, text("#run-1999 span:nth-child(2)"), "3001")
    assert browser.execute_script("return document.querySelectorAll('.run').length") < 40
    press(browser, Keys.HOME)
    press(browser, Keys.ARROW_DOWN)
    press(browser, Keys.ENTER)
    wait(browser, "location.hash", "#00000001-run")
    wait(browser, "document.getElementById('latest').hidden", wanted=False)


def test_a_server_that_is_started_again(browser, scan):
    """The page goes on by itself where a server with its key comes back, and says so where the key is another."""
    with ExitStack() as stack:
        watched = stack.enter_context(closing(ManyRuns(lambda: [scan.writer.directory])))
        with served(watched) as port:
            browser.get(f"http://127.0.0.1:{port}/filestore?api_key={KEY}")
            wait(browser, ROW, "9")
        wait(browser, text("#link"), "no answer; tried again")
        scan.take(2)
        stack.enter_context(served(watched, port))
        wait(browser, ROW, "11")
        wait(browser, text("#link"), "connected")
    browser.get("about:blank")
    # That a server is away is what the browser itself notes.
    assert [each for each in browser.get_log("browser") if each["source"] != "network"] == []


def test_on_a_phone(browser, page):
    """Nothing is wider than the screen, and all is there."""
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wait(browser, ROW, "9")
        wait(browser, text("#count"), "2,000")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        sections = (
            "[...document.querySelectorAll('section')].every((each) => each.getBoundingClientRect().right <= 360)"
        )
        assert browser.execute_script(f"return {sections}")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
