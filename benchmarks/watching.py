"""How far the page is behind a run, how soon it is there, and what it costs the plan.

Run as ``python benchmarks/watching.py [--seconds 30]``, with Chromium and its driver installed. First a run at 10 Hz
with frames of 1024 x 1024 pixels is watched in the browser: shown are the time to the first paint, of a page that is
opened anew some times, and how far the frame that is shown is behind the event that it is of, each time it changes.
Then events come at 100 Hz, in turn by themselves and with five followers of the spool and the page open: shown are
the times of the writer's calls, and for how long the delivery goes on after the last event.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blocking import KEY, server
from following import begin, scan, shown

from bluesky_filestore import CatalogWriter

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1300,900"),
)
_PAINT = "return performance.getEntriesByName('first-paint')[0]?.startTime ?? null"
_WATCH_FRAMES = """
window.seen = [];
new MutationObserver(() => window.seen.push([Number(document.getElementById('frame').dataset.row), Date.now() / 1000]))
  .observe(document.getElementById('frame'), {attributeFilter: ['data-row']});
"""


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


@contextmanager
def page(spool: Path) -> Iterator[str]:
    """The page of a spool, by ``bluesky-filestore watch``: its address."""
    command = [sys.executable, "-m", "bluesky_filestore", "watch", str(spool), "--key", KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "http://" in line:
                    yield next(word for word in line.split() if word.startswith("http://"))
                    return
            raise RuntimeError("the page did not start")
        finally:
            process.terminate()


def behind(driver: Any, address: str, writer: CatalogWriter, directory: Path, seconds: float) -> tuple[Any, Any]:
    """The first paints, and how far behind each frame was that was shown."""
    rate, events = 10.0, int(10 * seconds)
    run, makers, first = begin(directory, events, 1024)
    for pair in first:
        writer(*pair)
    times: list[float] = []
    taking = threading.Thread(target=_take, args=(writer, makers, events, rate, times))
    taking.start()
    paints = []
    for _ in range(5):
        driver.get("about:blank")
        driver.get(address)
        while (painted := driver.execute_script(_PAINT)) is None:
            time.sleep(0.02)
        paints.append(painted / 1e3)
    driver.execute_script(_WATCH_FRAMES)
    taking.join()
    time.sleep(1)
    seen = driver.execute_script("return window.seen")
    writer("stop", run.compose_stop())
    return paints, [at - times[int(row)] for row, at in seen]


def _take(writer: CatalogWriter, makers: tuple[Any, Any], events: int, rate: float, times: list[float]) -> None:
    bundle, resource = makers
    began = time.perf_counter()
    for number in range(events):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        datum = resource.compose_datum(datum_kwargs={"point_number": number})
        event = bundle.compose_event(
            data={"image": datum["datum_id"]}, timestamps={"image": 1.0}, filled={"image": False}, validate=False
        )
        times.append(event["time"])
        writer("datum", datum)
        writer("event", event)


def main() -> None:
    """Measure, and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the run at 10 Hz")
    parser.add_argument("--events", type=int, default=1500, help="of each run at 100 Hz")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["TILED_API_KEY"] = KEY
    with tempfile.TemporaryDirectory() as scratch, server(Path(scratch) / "catalog") as (uri, _), browser() as driver:
        directory, spool = Path(scratch), Path(scratch) / "spool"
        with CatalogWriter.from_uri(uri, api_key=KEY, spool=spool) as writer, page(spool) as address:
            paints, lags = behind(driver, address, writer, directory, options.seconds)
            print(f"first paint: median {statistics.median(paints):.2f} s, longest {max(paints):.2f} s")
            print(f"frames shown: {len(lags)} of {int(10 * options.seconds)}, behind by {shown(lags)}")
            found: dict[str, list[Any]] = {"by itself": [], "watched and followed": []}
            for _ in range(options.rounds):
                for title, outcomes in found.items():
                    is_watched = title != "by itself"
                    driver.get(address if is_watched else "about:blank")
                    followers = [[str(spool), "frames"]] * 5 if is_watched else []
                    outcomes.append(scan(writer, directory, options.events, 100.0, followers))
            for title, outcomes in found.items():
                print(f"{title}: calls {shown([each for one in outcomes for each in one['calls']])}")
                print("  delivered after " + ", ".join(f"{one['delivered']:.2f} s" for one in outcomes))
                if lags := [each for one in outcomes for of in one["lags"] for each in of]:
                    print(f"  followers behind by {shown(lags)}")


if __name__ == "__main__":
    main()
