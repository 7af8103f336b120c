"""A headless Chromium for tests, driven over two pipes by its DevTools protocol: nothing to install beside it."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Software rendering takes seconds where several programs share two cores.
PATIENCE_S = 90.0


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Browser:
    """One tab. What it logs and fetches is recorded.

    Attributes:
        errors: texts of uncaught exceptions, console errors and warnings, and refused contents.
        requests: addresses that were asked for, data: and blob: left out.
    """

    def __init__(self, width: int = 1200, height: int = 760, dark: bool = False):
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._count = 0
        self._folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        # Chromium reads commands at 3 and answers at 4.
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        # Copies far from 3 and 4, so that neither is overwritten before it is moved there.
        high = [fcntl.fcntl(handle, fcntl.F_DUPFD, 10) for handle in (commands, answers)]
        options = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",  # as root, in a container
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            f"--window-size={width},{height}",
            f"--user-data-dir={self._folder.name}",
        ]
        self._process = subprocess.Popen(
            [find_browser(), *options],
            preexec_fn=lambda: [os.dup2(handle, at) for at, handle in enumerate(high, 3)],
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for handle in (commands, answers, *high):
            os.close(handle)
        self._left = b""
        self._session = None
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._send(f"{domain}.enable")
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self._send("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str) -> None:
        """Load a page and wait until it says that it is ready."""
        self.errors.clear()
        self.requests.clear()
        self._send("Page.navigate", url=url)
        self.wait(
            "document.documentElement.dataset.ready === 'true' || !document.getElementById('message').hidden"
        )

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self._send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Return once an expression in the page is true."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                if self.run(condition):
                    return
            except RuntimeError:
                pass  # the page is not there yet
            time.sleep(0.1)
        raise TimeoutError(f"{condition}: still false; {self.errors}")

    def click(self, x: float, y: float) -> None:
        """Move there, press and release."""
        where = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self._send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self._send("Input.dispatchMouseEvent", type="mousePressed", buttons=1, **where)
        self._send("Input.dispatchMouseEvent", type="mouseReleased", **where)

    def press(self, key: str) -> None:
        """Press a key that types a character, or Escape."""
        text = {"text": key} if len(key) == 1 else {}
        self._send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self._send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """What is seen. Shape: (height, width, 3) uint8"""
        # Two frames, so that what was asked for has been drawn.
        self.run(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        )
        png = base64.b64decode(self._send("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            Path(path).write_bytes(png)
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def wait_for_picture(self, right: Callable[[np.ndarray], bool]) -> None:
        """Return once what is seen is right."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if right(self.screenshot()):
                return
            time.sleep(0.2)
        raise TimeoutError(f"the picture stays wrong; {self.errors}")

    def close(self) -> None:
        """End this browser."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._folder.cleanup()

    def _send(self, method: str, **parameters: Any) -> dict:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict:
        while b"\0" not in self._left:
            part = os.read(self._in, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict) -> None:
        method, given = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self._complain(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and given["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self._complain(
                " ".join(str(a.get("value", a.get("description"))) for a in given["args"])
            )
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self._complain(given["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = given["request"]["url"]
            if not url.startswith(("data:", "blob:")):
                self.requests.append(url)

    def _complain(self, text: str) -> None:
        # Addresses of modules hold their whole source.
        self.errors.append(re.sub(r"(data:[a-z/]+;base64,)[A-Za-z0-9+/=]+", r"\1...", text))
