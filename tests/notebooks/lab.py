"""JupyterLab in a browser, for the tests of what only a person with a mouse can do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Milliseconds that anything may take on a machine that is busy with other tests.
PATIENCE = 180_000


@contextmanager
def server(folder: Path, home: Path) -> Iterator[str]:
    """JupyterLab over a folder, without the user's settings; gives its address, to which a path is added."""
    own = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = os.environ | own | {"IPYTHONDIR": str(home / "ipython"), "PYTHONPATH": str(ROOT)}
    disabled = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # asks at every start
    (home / "CONFIG" / "labconfig").mkdir(parents=True)
    (home / "CONFIG" / "labconfig" / "page_config.json").write_text(json.dumps(disabled))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root"]
    command += ["--IdentityProvider.token=abc", f"--ServerApp.root_dir={folder}"]
    log = home / "lab.log"
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    try:
        address, patience = "", time.monotonic() + PATIENCE / 1000
        while not address:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < patience, log.read_text()
            found = re.search(r"http://127\.0\.0\.1:\d+/lab", log.read_text())
            address = found[0] if found else ""
            time.sleep(0.2)
        urllib.request.urlopen(f"{address}?token=abc").close()
        yield f"{address}/tree/{{}}?token=abc&reset"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser() -> Iterator[Page]:
    """A page of 1,400 pixels that waits with patience."""
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = window.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE)
        try:
            yield page
        finally:
            window.close()


class Notebook:
    """A notebook that is open in JupyterLab."""

    def __init__(self, page: Page, address: str, path: str) -> None:
        self.page = page
        page.goto(address.format(path))
        page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
        self.idle()  # what is run before there is a kernel is forgotten

    def menu(self, menu: str, entry: str) -> None:
        """Choose an entry of a menu."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
        self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{entry}$")).first.click()

    def run_all(self) -> None:
        """Run all cells, without waiting for them."""
        self.menu("Run", "Run All Cells")

    def replace(self, number: int, source: str) -> None:
        """Write another source into a cell, counted from 0."""
        editor = self.page.locator(".jp-Cell").nth(number).locator(".cm-content")
        editor.click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)

    def cell(self, text: str) -> Any:
        """The code cell with a text in its source."""
        return self.page.locator(".jp-CodeCell", has=self.page.locator(".cm-content", has_text=text)).first

    def idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()

    def shoot(self, what: Any, path: Path) -> None:
        """Take a picture of what may be longer than a screen."""
        self.page.set_viewport_size({"width": 1400, "height": 2000})
        what.scroll_into_view_if_needed()
        what.screenshot(path=path)
        self.page.set_viewport_size({"width": 1400, "height": 1000})
