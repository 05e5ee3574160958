"""The site: built without a warning, no link to nowhere, a page for everything that there is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from advprune_core.cli.catalogue import look_up
from docs.pages import ROOT, Site, parsed, write_site
from tests.notebooks.lab import CHROMIUM, browser
from tests.reference import REFERENCE

#: The contrast of a table's cells with what is behind them, and by how much the page is wider than the window.
LOOK = """() => {
    const rgba = colour => colour.match(/[0-9.]+/g).map(Number)
    const light = ([r, g, b]) => [[r, .2126], [g, .7152], [b, .0722]].reduce((sum, [value, share]) => {
        const part = value / 255
        return sum + share * (part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)
    }, 0)
    const contrast = cell => {
        let behind = cell
        while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement
        const styles = [getComputedStyle(cell).color, getComputedStyle(behind).backgroundColor]
        const [a, b] = styles.map(colour => light(rgba(colour)))
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05)
    }
    const root = document.documentElement
    return [Math.min(...[...document.querySelectorAll("td")].map(contrast)), root.scrollWidth - root.clientWidth]
}"""


@cache
def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def dead_links(folder: Path) -> Iterator[str]:
    """Links between the pages of a folder to a file, or to a place in a page, that is not there."""
    for page in sorted(folder.rglob("*.html")):
        for tag in soup(page).find_all(True):
            for link in (tag.get("href"), tag.get("src")):
                address = urlsplit(str(link or ""))
                if link is None or address.scheme or address.netloc:
                    continue
                target = (page.parent / unquote(address.path)).resolve() if address.path else page
                there = target.is_file() and target.is_relative_to(folder.resolve())
                if there and address.fragment and target.suffix == ".html":
                    there = soup(target).find(id=unquote(address.fragment)) is not None
                if not there:
                    yield f"{page.relative_to(folder)}: {link}"


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a b.html").write_text('<p id="here"><a href="">', encoding="utf-8")
    good = '<a href="a%20b.html#here"><a href="#top" id="top"><img src="data:,"><a href="https://x.org/none">'
    bad = '<a href="a%20b.html#there"><a href="#none"><img src="none.png"><a href="../"><a href="sub">'
    (tmp_path / "index.html").write_text(good + bad, encoding="utf-8")
    (tmp_path / "sub").mkdir()
    links = ["a%20b.html#there", "#none", "none.png", "../", "sub"]
    assert list(dead_links(tmp_path.resolve())) == [f"index.html: {link}" for link in links]


def test_links_lead_to_pages_and_files_come_along(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for written, found in {
        "[a](results/reference/digits)": "[a](results/reference/digits/README.md)",
        "[a](notebooks/course)": "[a](notebooks/course/README.md)",
        "[a](advprune_core/pruners/__init__.py)": "[a](api/advprune_core.pruners.md)",
        "[a](advprune_core/datasets/base.py)": "[a](api/advprune_core.datasets.base.md)",
        "[a](README.md#the-answer)": "[a](index.md#the-answer)",
        "![a](results/reference/digits/runtime.png)": "![a](results/reference/digits/runtime.png)",
        "[a](https://x.org/README.md), [b](#here)": "[a](https://x.org/README.md), [b](#here)",
    }.items():
        assert site.linked(written, "index.md") == found
    assert site.linked("[a](../collapse)", "results/reference/trainers/README.md") == "[a](../collapse/README.md)"
    assert site.linked("[a](../README.md)", "results/x.md") == "[a](../index.md)"
    copied = tmp_path / "results" / "reference" / "digits" / "runtime.png"
    assert copied.read_bytes() == (REFERENCE / "digits" / "runtime.png").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"index\.md links to none\.md"):
        site.linked("[a](none.md)", "index.md")


def test_tables_of_notebooks_are_read_as_they_stand() -> None:
    table = pd.DataFrame({"arm": ["a<b", "c"], "robust": [0.5, 0.25], "gain": [None, 1.0]}, index=[3, 4])
    found = parsed(f"<div>{table.to_html()}</div>")
    assert found is not None
    assert list(found) == ["", "arm", "robust", "gain"]
    assert found.to_numpy().tolist() == [["3", "a<b", "0.50", ""], ["4", "c", "0.25", "1.0"]]
    named = parsed(table.set_index(["arm", "robust"])[["gain", "gain"]].set_axis(["least", "most"], axis=1).to_html())
    assert named is not None
    assert list(named) == ["arm", "robust", "least", "most"], "names of an index stand in a row of their own"
    assert named.to_numpy().tolist() == [["a<b", "0.50", "", ""], ["c", "0.25", "1.0", "1.0"]]
    assert parsed("<p>none</p>") is None
    assert parsed(table.set_index(["arm", "robust"]).assign(x=1).iloc[[0, 0]].to_html()) is None


@pytest.mark.slow(seconds=200)
def test_the_site(tmp_path: Path) -> None:
    source, built = tmp_path / "source", tmp_path / "html"
    write_site(source)
    sphinx = [sys.executable, "-m", "sphinx", "--quiet", "--conf-dir", "docs", "--doctree-dir", str(tmp_path / "trees")]
    done = subprocess.run([*sphinx, str(source), str(built)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert list(dead_links(built.resolve())) == []
    for family, members in look_up().items():
        for name in members if family != "controls" else ["README"]:
            assert (built / "components" / family / f"{name}.html").is_file(), (family, name)
    gallery = {link["href"] for link in soup(built / "gallery.html").find_all("a", href=True)}
    for folder in (path for path in REFERENCE.iterdir() if path.is_dir()):
        page = f"results/reference/{folder.name}/README.html"
        assert page in gallery
        linked = {link["href"] for link in soup(built / page).find_all("a", href=True)}
        assert {f"{path.stem}.html" for path in folder.glob("*.ipynb")} <= linked
        tables = [script for script in soup(built / page).find_all("script") if "ITable" in script.get_text()]
        assert bool(tables) == (folder / "manifest.json").exists()
    if CHROMIUM is not None:
        look(built)


def look(site: Path) -> None:
    """Nothing hangs over at two widths, light and dark; tables come to life and can be read."""
    with browser() as page:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        for name in ("index", "results/reference/digits/README", "components/pruners/random", "commands"):
            for width, theme in ((1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")):
                page.set_viewport_size({"width": width, "height": 1000})
                page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
                page.goto((site / f"{name}.html").as_uri())
                if "ITable" in page.content():
                    page.locator("table.dataTable tbody td").first.wait_for()
                contrast, overhang = page.evaluate(LOOK) if page.locator("td").count() else (21, 0)
                assert contrast > 4.5, (name, width, theme)
                assert overhang <= 0, (name, width, theme)
        assert errors == []
