"""The page of studies: everything is in it, nothing is loaded, and it says what the records say."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import itables.options
import pandas as pd
import pytest
from itables.javascript import generate_init_offline_itables_html
from PIL import Image

from advprune_core.analysis.pages import findings_of
from advprune_core.analysis.report import report, sortable
from advprune_core.base.settings import ConfigError
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect
from tests.made_up import entry_point, run_record, write_manifest
from tests.notebooks.lab import CHROMIUM, browser
from tests.reference import REFERENCE


@pytest.fixture(scope="module")
def page() -> str:
    return report([(REFERENCE / study, study) for study in ("digits", "freshness")])


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    own = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']https?:", own)
    assert not re.findall(r"<link[^>]+href=[\"']https?:", own)


def test_every_figure_is_in_it(page: str) -> None:
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', page)
    assert len(pictures) >= 5
    for caption, data in pictures:
        assert len(caption) > 20
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == "PNG"
            assert min(image.size) > 300


def test_it_says_what_the_findings_say(page: str) -> None:
    for study in ("digits", "freshness"):
        text = findings_of(collect(REFERENCE / study, study=study))
        plain = re.sub(r"<[^>]+>", "", page)
        for number in re.findall(r"[+-]\d+\.\d points \[[^]]+\]", text):
            assert number in plain
    for key in collect(REFERENCE / "digits", study="digits")["key"].unique():
        assert key in page, "every run is in the table of all runs"
    assert "<li>" in page


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    write_manifest(tmp_path, "mine", [])
    with pytest.raises(ConfigError, match="no run of the study 'mine'"):
        report([(tmp_path, "mine")])
    RunStore(tmp_path).write_run(run_record("a" * 16, status="diverged"), last=None)
    write_manifest(tmp_path, "untested", [("random", 1.0, 0, None, "a" * 16, "b" * 16)])
    with pytest.raises(ConfigError, match="no run of the study 'untested'"):
        report([(tmp_path, "untested")])
    with pytest.raises(ConfigError, match="name a study"):
        report([])


def test_the_command_takes_names_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    advprune, out = entry_point(monkeypatch, capsys), tmp_path / "page.html"
    code, printed, _ = advprune("report", str(REFERENCE / "freshness"), "--out", str(out))
    assert (code, printed) == (0, f"freshness in {out}\n")
    assert "<title>freshness</title>" in out.read_text()
    for arguments, message in (
        (["--out", str(tmp_path / "page.pdf")], "must end in .html"),
        (["nothing", "--results", str(tmp_path), "--out", str(out)], "nothing"),
    ):
        code, _, error = advprune("report", *arguments)
        assert code != 0
        assert message in error


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)")
def test_a_click_on_a_header_sorts_by_value(tmp_path: Path) -> None:
    rows = {"arm": ["a", "b", "c"], "robust": ["9.5 [9.0, 10.0]", "100.0 [9.0, 101]", "20.0 [1.0, 39.0]"]}
    table = pd.DataFrame(rows | {"kept": ["100 %", "20 %", "5 %"], "gain": ["1.5", "", "-3"]})
    (tmp_path / "page.html").write_text(
        generate_init_offline_itables_html(itables.options.dt_bundle) + sortable(table), encoding="utf-8"
    )
    with browser() as page:
        page.goto((tmp_path / "page.html").as_uri())
        page.locator("table.dataTable").wait_for()
        for column, order in {"robust": "acb", "kept": "cba", "gain": "bca"}.items():
            page.locator("table.dataTable thead th", has_text=column).click()
            page.locator(f"table.dataTable thead th[aria-sort=ascending]:has-text('{column}')").wait_for()
            assert "".join(page.locator("table.dataTable tbody td:first-child").all_inner_texts()) == order
