"""The study explorer: accuracies of a study as a curve, a point of it, and a run of that point."""

from __future__ import annotations

import html
from pathlib import Path

import ipywidgets as widgets

from advprune_core.base.settings import check_names
from advprune_core.explore.curves import (
    AXES,
    Axis,
    arms_of,
    axes_of,
    choices,
    curve_figure,
    metrics_of,
    threats_of,
)
from advprune_core.explore.live import course_figure
from advprune_core.explore.pictures import png
from advprune_core.explore.runs import attacks_of_row, command, cost_by_phase, point_summary
from advprune_core.explore.sources import Source, name_of, sources
from advprune_core.explore.views import View, dropdown, fill, picture, table_html, tick, titled

#: Arms that are drawn before any is chosen.
FIRST = 6


class StudyExplorer(View):
    """Look into a finished study; nothing is trained.

    Parameters
    ----------
    study : str
        The one that is shown first.
    results : path, optional
        The results folder; default: ``$ADVPRUNE_RESULTS``, or the project's. The studies of
        ``results/reference`` are there in any case.
    axis : "fraction", "cost" or "seconds"

    Raises
    ------
    ConfigError
        An unknown study or axis, or no study at all.
    """

    def __init__(self, study: str = "digits", *, results: str | Path | None = None, axis: Axis = "fraction") -> None:
        check_names([axis], AXES, what="axis")
        self.known = sources(results)
        self.study = dropdown("study", list(self.known), value=name_of(study, self.known))
        self.threat = dropdown("threat model", [])
        self.axis = dropdown("x axis", [(AXES[axis], axis)])
        self.axis.layout.width = "560px"  # in a row of its own, because its texts are as long as the figure's
        self.metric = dropdown("accuracy", [])
        self.arms = widgets.SelectMultiple(description="arms", rows=9, layout={"width": "440px"})
        self.intervals, self.runs = tick("95 % intervals", True), tick("single runs", False)
        self.point, self.run = dropdown("point", []), dropdown("run", [])
        self.curve, self.course = picture(), picture()
        self.about_point, self.about_run = widgets.HTML(), widgets.HTML()
        controls = widgets.VBox([self.study, self.threat, self.metric])
        arms = widgets.VBox([self.arms, widgets.HBox([self.intervals, self.runs])])
        super().__init__(
            [
                widgets.HBox([controls, arms]),
                self.axis,
                self.curve,
                widgets.HBox([self.point, self.run]),
                self.about_point,
                self.course,
                self.about_run,
            ]
        )
        self.watch(self._show_study, self.study)
        self.watch(self._show_threat, self.threat)
        self.watch(self._show_arms, self.arms)
        self.watch(self._draw, self.axis, self.metric, self.intervals, self.runs)
        self.watch(self._show_point, self.point)
        self.watch(self._show_run, self.run)
        self.carry_out(self._show_study)

    @property
    def source(self) -> Source:
        """The study that is shown."""
        return self.known[self.study.value]

    def _show_study(self) -> None:
        self._threats = threats_of(self.source.table)
        fill(self.threat, list(self._threats))
        fill(self.axis, [(AXES[axis], axis) for axis in axes_of(self.source)])
        self._show_threat()

    def _show_threat(self) -> None:
        self.table = self._threats[self.threat.value]
        fill(self.metric, list(metrics_of(self.table).items()))
        arms = list(arms_of(self.table).items())
        self.arms.options = arms
        self.arms.value = [arm for _, arm in arms[:FIRST]]
        self._show_arms()

    def _show_arms(self) -> None:
        fill(self.point, list(choices(self.table, self.arms.value).items()))
        self._show_point()

    def _show_point(self) -> None:
        if self.point.value is None:
            fill(self.run, [])
        else:
            arm, fraction = self.point.value
            rows = self.table[(self.table["arm"] == arm) & (self.table["matched_fraction"] == fraction)]
            fill(self.run, [(f"seed {row['seed']} ({row['status']})", place) for place, row in rows.iterrows()])
            text = table_html(point_summary(self.table, self.point.value))
            self.about_point.value = titled(self.point.label, text)
        self._draw()
        self._show_run()

    def _draw(self) -> None:
        figure = curve_figure(
            self.source,
            self.table,
            self.arms.value,
            axis=self.axis.value,
            metric=self.metric.value,
            intervals=self.intervals.value,
            runs=self.runs.value,
            chosen=self.point.value,
        )
        self.curve.value = png(figure)

    def _show_run(self) -> None:
        if self.run.value is None:
            self.about_point.value = self.about_run.value = ""
            self.course.value = b""
            return
        row = self.table.loc[self.run.value]
        record = self.source.store.run(row["key"])
        assert record is not None  # the table is made of records
        name = f"{self.point.label}, seed {row['seed']}"
        self.course.value = png(course_figure({name: record.epochs}, {}))
        typed = command(record.run_config, attacks_of_row(self.source, row))
        parts = [
            titled("Cost by phase", table_html(cost_by_phase(record))),
            titled("The same again", f"<pre>{html.escape(typed)}</pre>"),
        ]
        self.about_run.value = f"Run {record.key}, {record.status}.<br>" + "".join(parts)
