"""What if: a budget, the best arm that it pays for, and the time that this takes here."""

from __future__ import annotations

import math
from pathlib import Path

import ipywidgets as widgets

from advprune_core.base.frontend import attended
from advprune_core.base.settings import ConfigError
from advprune_core.explore.curves import threats_of
from advprune_core.explore.pictures import png
from advprune_core.explore.sources import Source, name_of, sources
from advprune_core.explore.views import View, dropdown, fill, picture, rendered, slider
from advprune_core.explore.what_if import advice, front_figure, least_budget, machine_time


class WhatIf(View):
    """Which arm a budget should be spent on, by a study's measured front.

    Parameters
    ----------
    study : str
        The one that is shown first.
    budget : float
        Share of the most expensive arm's cost, in (0, 1].
    results : path, optional
        The results folder, as of `StudyExplorer`.

    Raises
    ------
    ConfigError
        An unknown study, or none at all; a budget out of range.
    """

    def __init__(self, study: str = "digits", *, budget: float = 0.4, results: str | Path | None = None) -> None:
        if not 0 < budget <= 1:
            raise ConfigError(f"budget = {budget:g} is a share of the most expensive arm's cost: above 0, at most 1")
        self.known, self._first = sources(results), 100 * budget
        self.study = dropdown("study", list(self.known), value=name_of(study, self.known))
        self.threat = dropdown("threat model", [])
        self.budget = slider("budget, %", low=0, high=100, step=1, value=self._first, form=".0f")
        self.here = widgets.Button(
            description="How long here?",
            tooltip="Times a few steps of training; data that are not here are downloaded",
            layout={"width": "160px"},
        )
        self.front, self.says, self.time = picture(), widgets.HTML(), widgets.HTML()
        controls = [self.study, self.threat, widgets.HBox([self.budget, self.here])]
        super().__init__([*controls, self.front, self.says, self.time])
        self.watch(self._show_study, self.study)
        self.watch(self._show_threat, self.threat)
        self.watch(self._show_budget, self.budget)
        self.here.on_click(lambda _: self.carry_out(self._show_time))
        self.carry_out(self._show_study)
        if not attended() and self._embedded():
            self.carry_out(self._show_time)

    @property
    def source(self) -> Source:
        """The study that is shown."""
        return self.known[self.study.value]

    def _embedded(self) -> bool:
        """Whether its data need no download."""
        return bool(self.table["dataset"].astype(str).str.contains("digits").all())

    def _show_study(self) -> None:
        self._threats = threats_of(self.source.table)
        fill(self.threat, list(self._threats))
        self._show_threat()

    def _show_threat(self) -> None:
        self.table = self._threats[self.threat.value]
        low = least_budget(self.table)
        self.budget.min = math.ceil(100 * low)
        self.budget.value = max(self._first, self.budget.min)
        self._show_budget()

    def _show_budget(self) -> None:
        share = self.budget.value / 100
        self.front.value = png(front_figure(self.table, share))
        self.says.value = rendered(advice(self.table, share))
        self.time.value = ""

    def _show_time(self) -> None:
        self.time.value = "timing a few steps of training ..."
        self.time.value = machine_time(self.source, self.table, self.budget.value / 100).text()
