"""What Sphinx makes the site of: README, results, notebooks and the course as they are, and a page for each component.

``python -m docs.pages build/docs/source`` writes all of it anew, laid out as the repository is, so that links
stay as they are written; a link to a folder goes to its page, one to source to the page of its module.
"""

from __future__ import annotations

import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from posixpath import normpath, relpath

import itables.options
import nbformat
import pandas as pd
from bs4 import BeautifulSoup
from itables.javascript import generate_init_offline_itables_html
from nbformat import NotebookNode

import advprune_core
from advprune_core.analysis.pages import rows_of
from advprune_core.analysis.report import every_run
from advprune_core.analysis.summaries import markdown
from advprune_core.cli.catalogue import registries
from advprune_core.trainers.controls import CONTROLS
from docs.cards import REFERENCE, STUDIES, TITLES, card, of, raw, results, rst, sortable_html, summaries

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_ANCHOR = re.compile(r"(?<=\]\()#[^)\s]+")
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")


class Site:
    """A folder of pages; `write` puts one there, with what it links to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        """Write a page or file, by its path in the site."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def page(self, name: str, text: str) -> None:
        """Write a page of Markdown that stands in the repository at the same place."""
        self.write(name, self.linked(text, name))

    def linked(self, text: str, name: str) -> str:
        """Markdown whose links lead to pages of the site, or to files, which are copied into it.

        Raises
        ------
        FileNotFoundError
            A link to what the repository doesn't have.
        """
        home = name.rpartition("/")[0]

        def target(found: re.Match[str]) -> str:
            place = normpath(f"{home}/{found[1]}" if home else found[1])
            if not (ROOT / place).exists():
                raise FileNotFoundError(f"{name} links to {found[1]}, which is not there")
            return relpath(self._place(place), home or ".")

        return _LINK.sub(target, text)

    def _place(self, place: str) -> str:
        """Where the site has what the repository has at `place`."""
        path = ROOT / place
        if path.is_dir():
            place, path = f"{place}/README.md", path / "README.md"
        if place == "README.md":
            return "index.md"
        if path.suffix == ".py" and place.startswith("advprune_core/"):
            return f"api/{place.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}.md"
        if path.suffix not in (".md", ".ipynb"):
            copy = self.folder / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        return place

    def notebook(self, name: str, notebook: NotebookNode, note: str = "") -> None:
        """Write a notebook, its tables sortable, with a note under its title."""
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                # JupyterLab's anchors keep capitals, those of the site don't.
                cell.source = _ANCHOR.sub(lambda anchor: anchor[0].lower(), self.linked(cell.source, name))
            for output in cell.get("outputs", []):
                html = output.get("data", {}).get("text/html", "")
                if (table := parsed(html)) is not None:
                    output.data["text/html"] = sortable_html(table, name)
        if note:
            notebook.cells.insert(1, nbformat.v4.new_markdown_cell(self.linked(note, name)))
        self.write(name, nbformat.writes(notebook))


def parsed(html: str) -> pd.DataFrame | None:
    """The table that pandas wrote as HTML, as text; None where it is none, or has cells over several rows."""
    soup = BeautifulSoup(html, "html.parser")
    if soup.find("table", class_="dataframe") is None or soup.find(attrs={"rowspan": True}) is not None:
        return None
    found = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in soup.find_all("tr")]
    heads = len(soup.select("thead tr"))  # names of an index stand in a row of their own
    head, rows = ["".join(names) for names in zip(*found[:heads], strict=True)], found[heads:]
    return pd.DataFrame(rows, columns=head).replace({"NaN": "", "None": ""})  # or numbers would sort as words


def toctree(pages: Sequence[str], *, options: str = ":maxdepth: 1") -> str:
    """A table of contents of Markdown's pages, each a path or ``title <path>``."""
    entries = "\n".join(pages)
    return f"```{{toctree}}\n{options}\n\n{entries}\n```"


def write_texts(site: Site) -> None:
    """The README as front page, and what stands beside it."""
    parts = ["gallery", "Experiments <notebooks/README>", "Course <notebooks/course/README>", "components/README"]
    more = ["commands", "own", "CONTRIBUTING", "Reference <api/advprune_core>", "CHANGELOG"]
    contents = toctree([*parts, *more], options=":hidden:")
    site.page("index.md", f"{(ROOT / 'README.md').read_text()}\n{contents}\n")
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "results/README.md"):
        site.page(name, (ROOT / name).read_text())
    site.write("own.md", (HERE / "own.md").read_text())
    typer = [sys.executable, "-m", "typer", "advprune_core.cli.app", "utils", "docs"]
    named = [*typer, "--name", "advprune", "--title", "Commands"]
    site.write("commands.md", subprocess.run(named, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def write_results(site: Site) -> None:
    """The gallery, and a page for each folder of ``results/reference``."""
    cards, listed = [], []
    folders = [path for path in REFERENCE.iterdir() if path.is_dir()]
    for folder in sorted(folders, key=lambda path: (not any(path.glob("*.png")), path.name)):  # with figures first
        home, text = f"results/reference/{folder.name}", (folder / "README.md").read_text()
        title, _, rest = text.partition("\n")
        if folder.name in STUDIES:
            text = _with_tables(text, folder.name, f"{home}/README.md")
        notebooks = sorted(folder.glob("*.ipynb"))
        if notebooks:
            text += f"\n## Executed notebooks\n\n{toctree([f'{path.stem} <{path.name}>' for path in notebooks])}\n"
        files = [path.name for path in sorted(folder.iterdir()) if path.suffix not in (".md", ".ipynb", ".png")]
        text += f"\n## Files\n\n{', '.join(f'[{name}]({name})' for name in files)}\n"
        site.page(f"{home}/README.md", text)
        for path in notebooks:
            site.notebook(f"{home}/{path.name}", nbformat.read(path, as_version=4))
        figure = next((f":img-top: {home}/{path.name}\n" for path in sorted(folder.glob("*.png"))), "")
        link, about = f":link: {home}/README\n:link-type: doc", _first_sentences(rest.strip().partition("\n\n")[0])
        cards.append(f":::{{grid-item-card}} {title.lstrip('# ')}\n{link}\n{figure}\n{about}\n:::")
        listed.append(f"{folder.name} <{home}/README>")
    grid = "\n\n".join(["::::{grid} 1 1 2 2\n:gutter: 3", *cards, "::::"])
    contents = toctree([*listed, "About these files <results/README>"], options=":hidden:")
    site.write("gallery.md", f"{(HERE / 'gallery.md').read_text()}\n{grid}\n\n{contents}\n")


def _first_sentences(paragraph: str) -> str:
    """The first two sentences of a paragraph, without links; nothing where it doesn't end as one."""
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", paragraph)
    return " ".join(re.split(r"(?<=\.)\s", text)[:2]) if text.endswith(".") else ""


def _with_tables(text: str, study: str, page: str) -> str:
    """A study's page whose table sorts and filters, with one of its runs."""
    table = of(study)
    rows = rows_of(table, REFERENCE / study, study)
    before, found, after = text.partition(markdown(rows))
    assert found, f"the page of {study} is not what its records say"
    runs = raw(sortable_html(every_run(table), page))
    return f"{before}{raw(sortable_html(rows, page))}{after}\n## Every run\n\n{runs}\n"


def write_notebooks(site: Site) -> None:
    """The experiments with where they were executed, and the lessons as students get them."""
    experiments = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem != "README")
    for path in experiments:
        executed = [found.relative_to(ROOT) for found in sorted(REFERENCE.glob(f"*/{path.name}"))]
        links = ", ".join(f"[{found.parent.name}](../{found.as_posix()})" for found in executed)
        note = f"Executed, with all its figures: {links}." if links else ""
        site.notebook(f"notebooks/{path.name}", nbformat.read(path, as_version=4), note)
    start = nbformat.read(ROOT / "notebooks" / "README.ipynb", as_version=4)
    start.cells.append(nbformat.v4.new_markdown_cell(toctree([path.name for path in experiments], options=":hidden:")))
    site.notebook("notebooks/README.ipynb", start)
    editions = runpy.run_path(str(ROOT / "notebooks" / "course" / "editions.py"))
    note = "The student's edition: exercises are open. `make student` writes it, `make course` also the solved one."
    for path in editions["LESSONS"]:
        site.notebook(f"notebooks/course/{path.name}", editions["student"](nbformat.read(path, as_version=4)), note)
    text = (ROOT / "notebooks" / "course" / "README.md").read_text()
    lessons = toctree([path.name for path in editions["LESSONS"]], options=":hidden:")
    site.page("notebooks/course/README.md", f"{text}\n{lessons}\n")


def write_components(site: Site) -> None:
    """A page for each component, one for each family, and one for them all."""
    listed = []
    for family, what in TITLES.items():
        called = family.replace("_", " ").capitalize()
        listed.append(f"* [{called}]({family}/README.md): {what}")
        parts = [f"# {called}", f"{what}."]
        if family == "controls":
            for name, text in CONTROLS.items():
                use = f"{text[0].upper()}{text[1:]}: `advprune run --control {name}`."
                parts += [f"## {name}", use, *results(family, name)[1:]]
        else:
            members = registries()[family].classes()
            parts += ["| | |\n| --- | --- |"]
            parts[-1] += "".join(f"\n| [{name}]({name}.md) | {cls.summary()} |" for name, cls in members.items())
            parts += [toctree(list(members), options=":hidden:")]
            for name, component in members.items():
                site.write(f"components/{family}/{name}.md", card(family, name, component))
        site.write(f"components/{family}/README.md", "\n\n".join(parts) + "\n")
    contents = toctree([f"{family}/README" for family in TITLES], options=":hidden:")
    site.write("components/README.md", "\n".join([(HERE / "components.md").read_text(), *listed, "", contents, ""]))


def write_reference(site: Site) -> None:
    """A page for each module."""
    found = [module.name for module in pkgutil.walk_packages(advprune_core.__path__, "advprune_core.")]
    modules = [name for name in found if not name.startswith("advprune_core.cli.")]  # commands have a page of their own
    for module in ["advprune_core", *modules]:
        inner = [name for name in modules if name.rpartition(".")[0] == module]
        members = f".. automodule:: {module}\n   :members:\n   :ignore-module-all:\n   :show-inheritance:"
        parts = [f"# {module}", rst(members)]
        if module == "advprune_core":
            values = [getattr(advprune_core, name) for name in advprune_core.__all__]
            named = [f"{value.__module__}.{value.__qualname__}" for value in values if hasattr(value, "__qualname__")]
            parts.append(summaries([name.removeprefix("advprune_core.") for name in named]))
        if inner:
            parts.append(toctree([f"{name.rpartition('.')[2]} <{name}>" for name in inner]))
        site.write(f"api/{module}.md", "\n\n".join(parts) + "\n")


def write_site(folder: Path) -> None:
    """Write all that Sphinx reads into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    site = Site(folder)
    for write in (write_texts, write_results, write_notebooks, write_components, write_reference):
        write(site)
    tables = generate_init_offline_itables_html(itables.options.dt_bundle)
    script = re.search(r"<script>(.*?)</script>", tables, re.DOTALL)
    assert script is not None
    site.write("_static/itables.js", script[1])


if __name__ == "__main__":
    write_site(Path(sys.argv[1]))
