"""A headless Chromium, spoken to over a pipe (the DevTools protocol, one JSON message after the other, each
ended by a NUL). Nothing but the standard library."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Browser", "Page", "chromium"]

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 30.0

_FLAGS = (
    "--headless",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--remote-debugging-pipe",
    # whatever the page were to ask of another machine would fail, and be seen
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def chromium() -> str | None:
    """The browser of this machine."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One process. `session_id` in a message says which page it is about."""

    def __init__(self, program: str, profile: Path) -> None:
        to_read, to_write = os.pipe(), os.pipe()
        command = [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # the browser wants 3 and 4, which may be these very ones
        here, there = (fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (to_read[0], to_write[1]))
        script = f'exec "$@" 3<&{here} 4>&{there} {here}<&- {there}>&-'
        with (profile / "chromium.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", script, "bash", *command],
                pass_fds=(here, there),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "TZ": "UTC", "LANG": "C.UTF-8"},
            )
        for one in (to_read[0], to_write[1], here, there):
            os.close(one)
        self._out = to_read[1]
        self._in = os.fdopen(to_write[0], "rb")
        self._number = 0
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._hearers: dict[str, Callable[[str, dict[str, Any]], None]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        rest = b""
        while block := self._in.read1(1 << 20):
            *messages, rest = (rest + block).split(b"\0")
            for message in messages:
                self._heard(json.loads(message))

    def _heard(self, message: dict[str, Any]) -> None:
        if "id" in message:
            answer = self._answers.pop(message["id"], None)
            if answer is not None:  # else nobody asked to know
                answer.put(message)
        elif (hearer := self._hearers.get(message.get("sessionId", ""))) is not None:
            hearer(message["method"], message["params"])

    def call(self, method: str, session: str | None = None, /, **params: Any) -> dict[str, Any]:
        """The result of one command. Raises RuntimeError with what the browser says."""
        answer: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._lock:
            self._number += 1
            self._answers[self._number] = answer
            message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
            if session is not None:
                message["sessionId"] = session
            os.write(self._out, json.dumps(message).encode() + b"\0")
        try:
            found = answer.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise RuntimeError(f"{method}: no answer") from None
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']}")
        result: dict[str, Any] = found["result"]
        return result

    @contextlib.contextmanager
    def page(self, width: int = 1280, height: int = 800) -> Iterator[Page]:
        """A page in a context of its own: no storage and no cache are shared with another."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        self._hearers[session] = page.hear
        try:
            page.prepare(width, height)
            yield page
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)
            del self._hearers[session]

    def close(self) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            self.call("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        os.close(self._out)
        self._reader.join(10)
        self._in.close()


def _grave(issue: dict[str, Any]) -> bool:
    """What is no matter of taste: policies, origins, and controls without a name."""
    kind = issue["details"].get("genericIssueDetails", {}).get("errorType", "")
    return kind.startswith("Form") or issue["code"] in (
        *("ContentSecurityPolicyIssue", "MixedContentIssue", "CorsIssue", "BlockedByResponseIssue"),
        *("CookieIssue", "QuirksModeIssue"),
    )


class Page:
    """One tab. What went wrong in it (an error on the console, a violation of the policy, an exception) is
    in `faults`, every address that it asked for in `requests`."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.faults: list[str] = []
        self.expected: list[str] = []  # what a fault may hold in this test
        self.requests: list[str] = []

    def call(self, method: str, /, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def prepare(self, width: int, height: int) -> None:
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def size(self, width: int, height: int, *, touch: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )

    def scheme(self, name: str) -> None:
        """`dark` or `light`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def hear(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            self.faults.append(f"exception: {text}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            texts = [str(one.get("value", one.get("description"))) for one in params["args"]]
            self.faults.append(f"console: {' '.join(texts)}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.faults.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Audits.issueAdded" and _grave(params["issue"]):
            self.faults.append(f"issue: {json.dumps(params['issue'])[:600]}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def go(self, url: str) -> None:
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert failed is None, failed

    def run(self, script: str, *values: Any) -> Any:
        """The value of an expression, or what a function says of `values`; a promise is waited for."""
        if values:
            script = f"({script})({', '.join(json.dumps(value) for value in values)})"
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def until(self, script: str, *values: Any, patience_s: float = PATIENCE_S) -> Any:
        """Waits until it is true (as JavaScript sees it), and gives that value."""
        if values:
            script = f"({script})({', '.join(json.dumps(value) for value in values)})"
        script = f"(() => {{ try {{ return {script}; }} catch {{ return false; }} }})()"  # not there yet
        end = time.monotonic() + patience_s
        while not (found := self.run(script)):
            if time.monotonic() > end:
                text = self.run("document.body.innerText.slice(0, 2000)")
                raise AssertionError(f"never true: {script}\nfaults: {self.faults}\npage: {text}")
            self.run("new Promise((next) => setTimeout(() => requestAnimationFrame(next), 10))")
        return found

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.run(
            "(selector) => [...document.querySelectorAll(selector)].map((one) => one.textContent)", selector
        )
        return found

    def text(self, selector: str) -> str:
        (found,) = self.texts(selector)
        return found

    def count(self, selector: str) -> int:
        found: int = self.run("(selector) => document.querySelectorAll(selector).length", selector)
        return found

    def key(self, key: str, *, shift: bool = False) -> None:
        """A key goes down and up, as on a keyboard."""
        codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "ArrowUp": 38, "ArrowRight": 39, "ArrowLeft": 37}
        codes |= {"PageDown": 34, "PageUp": 33, "End": 35, "Home": 36, " ": 32}
        more: dict[str, Any] = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key]}
        about["modifiers"] = 8 if shift else 0
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        box = self.run(
            "(selector) => { const one = document.querySelector(selector);"
            " one.scrollIntoView({block: 'nearest'}); const box = one.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; }",
            selector,
        )
        about = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **about)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **about)

    def choose(self, selector: str, value: str) -> None:
        """An option of a list, as a person does it."""
        self.run(
            "(selector, value) => { const one = document.querySelector(selector); one.value = value;"
            " one.dispatchEvent(new Event('input', {bubbles: true})); }",
            selector,
            value,
        )

    def shot(self) -> bytes:
        """PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
