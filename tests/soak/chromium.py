"""Headless Chromium, driven through its DevTools protocol: what a page logs, holds and looks like."""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tornado.websocket import websocket_connect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_PATIENCE_SECONDS = 60
_MOST_BYTES = 2**27  # of one message: a screenshot is one


class Tab:
    """One tab of a browser; `messages` are the errors and warnings of its console, `requests` what it asked for."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._number = 0
        self.messages: list[str] = []
        self.requests: list[str] = []

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the protocol; returns its result."""
        self._number += 1
        await self._connection.write_message(json.dumps({"id": self._number, "method": method, "params": arguments}))
        while True:
            answer = await self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    async def open(self, path: Path, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> None:
        """Load a file in a window of a size and a scheme of colours; returns when it is loaded and drawn."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.set_dark(is_dark)
        await self.call("Page.navigate", url=path.absolute().as_uri())
        while (await self._next()).get("method") != "Page.loadEventFired":
            pass
        await self.value("new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)))")

    async def set_dark(self, is_dark: bool) -> None:
        """Switch the scheme of colours that the page is told."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def value(self, expression: str) -> Any:
        """The value of an expression in the page, of a promise when it is kept."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def screenshot(self, path: Path) -> None:
        """The whole page as a picture."""
        answer = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    async def _next(self) -> dict[str, Any]:
        message = await asyncio.wait_for(self._connection.read_message(), _PATIENCE_SECONDS)
        assert message is not None, "chromium has closed the connection"
        event: dict[str, Any] = json.loads(message)
        facts = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(facts["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.messages.append(json.dumps(facts["args"]))
        elif event.get("method") == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.messages.append(facts["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        return event


@contextlib.asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """A tab of a browser of its own, that ends with it."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        command = [PROGRAM, *options, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            connection = await websocket_connect(_address(Path(profile), process), max_message_size=_MOST_BYTES)
            try:
                yield Tab(connection)
            finally:
                connection.close()
        finally:
            process.terminate()
            process.wait(timeout=_PATIENCE_SECONDS)


def _address(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """Where the tab listens, once the browser has written down its port."""
    port_file, end = profile / "DevToolsActivePort", time.monotonic() + _PATIENCE_SECONDS
    while not (port_file.exists() and port_file.read_text().strip()):
        assert process.poll() is None, f"chromium ended with status {process.returncode}"
        assert time.monotonic() < end, "chromium does not open its port"
        time.sleep(0.1)
    port = port_file.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        pages = [each for each in json.load(answer) if each["type"] == "page"]
    address: str = pages[0]["webSocketDebuggerUrl"]
    return address
