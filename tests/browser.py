"""A real browser for tests: Debian's Chromium without a window, driven by its own protocol.

The DevTools protocol over a WebSocket needs no driver program whose version must match the
browser's. Clicks are mouse events at a place on the page, so what a person could not click (hidden,
covered, disabled) a test cannot click either.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 60.0
_POLL_S = 0.1
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--no-default-browser-check", "--mute-audio",
    "--remote-debugging-address=127.0.0.1", "--remote-debugging-port=0",
    # Nothing but this machine: a page that needs the network would not work here.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip

# Finds the innermost visible element that says `text`, scrolls it into view, and tells its centre
# where it is what lies there on the page and is not disabled.
_PLACE_OF = """
(([selector, text, exact]) => {
  const says = (e) => {
    const found = (e.innerText || e.getAttribute('aria-label') || '').trim();
    return exact ? found === text : found.includes(text);
  };
  const found = [...document.querySelectorAll(selector)].filter(says);
  const inner = found.filter((e) => !found.some((o) => o !== e && e.contains(o)));
  for (const e of inner) {
    if (e.closest('[disabled], [aria-disabled=true]')) continue;
    e.scrollIntoView({block: 'center', inline: 'center'});
    const box = e.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    const x = box.x + box.width / 2, y = box.y + box.height / 2;
    const top = document.elementFromPoint(x, y);
    if (top && (e.contains(top) || top.contains(e))) return {x, y};
  }
  return null;
})(%s)
"""


class Page:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.send("Page.enable")
        self.send("Runtime.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """Return what an expression (or the promise that it gives) comes to on the page."""
        result = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    @property
    def text(self) -> str:
        """What the page says to somebody who looks at it."""
        return self.evaluate("document.body ? document.body.innerText : ''")

    @property
    def address(self) -> str:
        """Where the page is."""
        return self.evaluate("location.href")

    def open(self, address: str) -> None:
        """Go to an address."""
        self.send("Page.navigate", url=address)

    def wait_for(self, *texts: str, patience_s: float = PATIENCE_S) -> str:
        """Wait until the page says all of these; return everything that it says."""
        ends = time.monotonic() + patience_s
        while True:
            said = self.text
            missing = [text for text in texts if text not in said]
            if not missing:
                return said
            assert time.monotonic() < ends, f"{missing} not on {self.address}:\n{said[:4000]}"
            time.sleep(_POLL_S)

    def click(self, text: str, selector: str = "*", exact: bool = True) -> None:
        """Click what says `text`, as soon as it is there to be clicked and stays in its place."""
        wanted = json.dumps([selector, text, exact])
        ends = time.monotonic() + PATIENCE_S
        before = None
        while True:
            place = self.evaluate(_PLACE_OF % wanted)
            if place is not None and place == before:
                break
            before = place
            assert time.monotonic() < ends, (
                f"nothing to click says {text!r} on {self.address}:\n{self.text[:4000]}"
            )
            time.sleep(_POLL_S)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, **place, **button)

    def resize(self, width_px: int, height_px: int) -> None:
        """Make the page this large."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width_px, height=height_px, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def open_browser(folder: Path) -> Iterator[Page]:
    """Start Chromium over an empty profile in `folder`, give its page, and end it."""
    profile = folder / "profile"
    browser = subprocess.Popen(
        [find_chromium(), *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"HOME": str(folder)},
    )
    try:
        with connect(_page_socket(browser, profile), max_size=None) as socket:
            yield Page(socket)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()


def find_chromium() -> str:
    """Return Chromium's program; installs Debian's package where there is none.

    Raises:
        RuntimeError: It is not there and cannot be installed; the message says why.
    """
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(
            "Expected Chromium for the tests of the UI; found none, and it cannot be installed "
            "without apt-get and root. Install the package 'chromium'."
        )
    said = ""
    for command in ("update", "install -y --no-install-recommends chromium"):
        done = subprocess.run(
            ["apt-get", "-q", *command.split()],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout[-1000:] + done.stderr[-1000:]
    found = shutil.which("chromium")
    if found is None:
        raise RuntimeError(f"Expected apt-get to install Chromium; it said: {said}")
    return found


def _page_socket(browser: subprocess.Popen, profile: Path) -> str:
    port_file = profile / "DevToolsActivePort"
    ends = time.monotonic() + PATIENCE_S
    while not (port_file.is_file() and port_file.read_text().strip()):
        assert browser.poll() is None, f"Chromium ended by itself: {browser.returncode}"
        assert time.monotonic() < ends, "Chromium did not come up"
        time.sleep(_POLL_S)
    port = port_file.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        targets = json.load(answer)
    return next(item["webSocketDebuggerUrl"] for item in targets if item["type"] == "page")
