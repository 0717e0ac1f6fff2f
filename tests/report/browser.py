"""A headless Chromium, driven over a pipe with nothing but the standard library.

``python -m tests.report.browser PAGE.html FOLDER`` takes the pictures of docs/report.md.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ANSWER_S = 60.0
"""So long an answer is waited for."""
WIDE, PHONE = (1280, 900), (390, 844)
"""Windows: width and height. Unit: CSS pixels."""


def browser() -> str | None:
    """The program, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Tab:
    """One page in the browser; ``said`` are its errors and warnings, ``asked`` the addresses that it wanted to load."""

    process: subprocess.Popen[bytes]
    to: int
    back: int
    session: str = ""
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    _left: bytes = b""
    _number: int = 0

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def wait(self, event: str) -> None:
        """Until it was told."""
        while event not in self.events:
            self._next()
        self.events.remove(event)

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, page: Path) -> None:
        """Load a file and wait until it is there."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait("Page.loadEventFired")

    def show(self, size: tuple[int, int], scheme: str = "light", media: str = "", scale: float = 1.0) -> None:
        """Size of the window, ``light`` or ``dark``, and ``print`` for paper."""
        mobile = size[0] < 500
        self.call(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=scale, mobile=mobile
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def picture(self, out: Path, height: int = 0) -> None:
        """Take a picture of the page, of the whole of it unless ``height`` is given."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        out.write_bytes(base64.b64decode(answer["data"]))

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + ANSWER_S
        while b"\0" not in self._left:
            assert select.select([self.back], [], [], max(0.0, until - time.monotonic()))[0], "the browser says nothing"
            part = os.read(self.back, 1 << 20)
            assert part, f"the browser ended: {self.process.wait()}"
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        told: dict[str, Any] = json.loads(text)
        self._note(told.get("method", ""), told.get("params", {}))
        return told

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.said.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.said.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.said.append(f"{told['entry']['source']}: {told['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif method:
            self.events.append(method)


@contextmanager
def tab() -> Iterator[Tab]:
    """An empty page in a browser of its own, which ends with the block."""
    program = browser()
    assert program is not None, f"none of {', '.join(NAMES)} is installed"
    hear, to = os.pipe()
    back, tell = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        given = [
            "--headless",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--no-first-run",
            "--disable-gpu",
        ]
        given += ["--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars"]
        given += ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to work for root with one
        # The browser reads at descriptor 3 and writes at 4, wherever ours are.
        program_line = f'exec "$0" "$@" 3<&{hear} 4>&{tell}'
        process = subprocess.Popen(
            ["bash", "-c", program_line, program, *given], pass_fds=(hear, tell), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(hear)
        os.close(tell)
        try:
            yield _attached(Tab(process, to, back))
        finally:
            os.close(to)
            process.terminate()
            process.wait(30)
            os.close(back)


def _attached(made: Tab) -> Tab:
    target = made.call("Target.createTarget", url="about:blank")["targetId"]
    made.session = made.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        made.call(f"{domain}.enable")
    return made


def main(page: Path, folder: Path) -> None:
    """The pictures of the documents: a desktop in the light, a phone in the dark."""
    with tab() as shown:
        for name, size, scheme, height in (("desktop", WIDE, "light", 1140), ("phone", PHONE, "dark", 1400)):
            shown.show(size, scheme)
            shown.open(page)
            shown.picture(folder / f"report-{name}.png", height)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
