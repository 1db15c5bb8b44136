"""Debian's Chromium on a study that `lrscale ui` serves, for tests and for README's pictures."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from lrscale.mlflow_ui.server import LOCAL, free_port

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
WAIT = 120_000
"""Milliseconds: a first page takes long where other work is going on."""
SIZE: ViewportSize = {"width": 1500, "height": 1000}
EXPECTED = ("users/current", "ResizeObserver")
"""MLflow's UI asks a server without log-in who is there, and is told 404; Chromium says that a layout took two rounds."""


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS.split())
        yield browser
        browser.close()


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """Serves a folder's store with `lrscale ui` and yields the link that it prints, as a browser would be sent to it."""
    port = free_port(LOCAL, 5600)
    command = [sys.executable, "-m", "lrscale", "ui", "--no-browser", "--port", str(port), *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            link = next(line.strip() for line in process.stdout if line.startswith("http"))
            yield re.sub(r"//[\w.]+:", "//lrscale.localhost:", link)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        assert "stopped" in process.stdout.read()


@dataclass
class Visit:
    """A page, and what must not happen on it."""

    page: Page
    base: str
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(WAIT)
        self.page.on("request", lambda r: None if r.url.startswith((self.base, "data:", "blob:")) else self.outside.append(r.url))
        self.page.on("console", lambda m: self.say(f"{m.text} {m.location}") if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.say(str(error)))

    def say(self, error: str) -> None:
        if not any(text in error for text in EXPECTED):
            self.errors.append(error)

    def check(self) -> None:
        """No request has left the machine, and nothing has gone wrong."""
        assert self.outside + self.errors == []


def visit(browser: Browser, link: str, view: str, charts: bool = False, wait: int = WAIT, size: ViewportSize = SIZE) -> Visit:
    """Opens a view, by the link to any, in a fresh page, and waits until its runs, and its lines or its picture, are there."""
    page = browser.new_page(viewport=size)
    made = Visit(page, link.partition("/#")[0])
    address = re.sub("viewStateShareKey=[^&]*(&compareRunsMode=CHART)?", f"viewStateShareKey={view}", link)
    page.goto(address + ("&compareRunsMode=CHART" if charts else ""))
    page.wait_for_selector(".ag-row", timeout=wait)
    if charts:
        page.wait_for_function("document.querySelectorAll('path.js-line, .rc-image img').length > 0")
    return made


def columns(page: Page) -> list[str]:
    """The table's columns from left to right, those of MLflow's own left out."""
    found = page.evaluate(
        "[...document.querySelectorAll('.ag-header-cell')].map(e => [Number(e.getAttribute('aria-colindex')), e.innerText])"
    )
    return [name for _, name in sorted(found) if name not in ("", "Run Name", "Created", "Duration")]


def rows(page: Page) -> list[tuple[str, str]]:
    """Name and colour of the runs that are drawn, from top to bottom; charts leave the colours out."""
    return [(str(name), str(colour)) for _, name, colour in sorted(page.evaluate(ROWS)) if name]


ROWS = """[...document.querySelectorAll('.ag-row')].map(e => [
  Number(e.getAttribute('row-index')),
  e.querySelector("a[href*='/runs/']")?.innerText ?? '',
  e.querySelector("input[type='color']")?.value ?? ''])"""
