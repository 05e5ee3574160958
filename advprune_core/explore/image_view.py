"""The image explorer: which images a pruner keeps, by score, and what an attack does to one of them."""

from __future__ import annotations

import ipywidgets as widgets

from advprune_core.base.settings import ConfigError
from advprune_core.explore.attacked import ATTACKS, attack_figure, attack_image
from advprune_core.explore.images import SCORES, sheet, sort_images
from advprune_core.explore.networks import CHOOSERS, Network
from advprune_core.explore.pictures import png
from advprune_core.explore.views import View, dropdown, fill, picture, slider, tick

#: The choice of images of any class.
_ALL = "all"


class ImageExplorer(View):
    """Look at training images as a network and a pruner see them, and attack one.

    Parameters
    ----------
    network : Network
        From `tiny_network` or `network_of_run`.
    pruner : str
        The one that is shown first.
    fraction : float
        Share that it keeps, in (0, 1].

    Raises
    ------
    ConfigError
        A fraction out of range; a pruner that is unknown, or cannot choose by a network alone.
    """

    def __init__(self, network: Network, *, pruner: str = "keep_easy", fraction: float = 0.4) -> None:
        if not 0 < fraction <= 1:
            raise ConfigError(f"fraction = {fraction:g} is the share that is kept: above 0, at most 1")
        self.network, share = network, round(100 * fraction, 9)
        network.selection(pruner, share / 100)  # what cannot choose is refused here, rather than below the widgets
        names = list(CHOOSERS) if pruner in CHOOSERS else [*CHOOSERS, pruner]
        self.pruner = dropdown("pruner", names, value=pruner)
        form = ".0f" if share.is_integer() else ".3g"
        self.fraction = slider("kept, %", low=min(1, share), high=100, step=1, value=share, form=form)
        self.score = dropdown("score", [(text, name) for name, text in SCORES.items()])
        self.shown = dropdown("images", ["all", "kept", "dropped"])
        # No choice has the value None: a selection may come up without one where it does.
        classes = [_ALL, *(str(label) for label in range(network.dataset.classes))]
        self.label = dropdown("class", classes)
        self.highest = tick("highest score first", True)
        self.page = widgets.IntSlider(description="page", min=1, max=1, continuous_update=False)
        self.page.style, self.page.layout.width = {"description_width": "110px"}, "440px"
        self.sheet, self.counts = picture(), widgets.HTML()
        self.image, self.attack = dropdown("image", []), dropdown("attack", list(ATTACKS.items()))
        eps = network.config.threat.eps
        self.eps = slider("eps", low=0, high=3 * eps, step=eps / 4, value=eps, form=".4f")
        self.attacked, self.says = picture(), widgets.HTML()
        left = widgets.VBox([self.pruner, self.fraction, self.shown, self.label])
        right = widgets.VBox([self.score, self.highest, self.page])
        super().__init__(
            [
                widgets.HTML(f"The network: {network.origin}."),
                widgets.HBox([left, right]),
                self.counts,
                self.sheet,
                widgets.HBox([self.image, widgets.VBox([self.attack, self.eps])]),
                self.says,
                self.attacked,
            ]
        )
        self.watch(self._sort, self.pruner, self.fraction, self.score, self.shown, self.label, self.highest)
        self.watch(self._show_page, self.page)
        self.watch(self._show_attack, self.image, self.attack, self.eps)
        self.carry_out(self._sort)

    def _sort(self) -> None:
        self.sorted = sort_images(
            self.network,
            pruner=self.pruner.value,
            fraction=self.fraction.value / 100,
            score=self.score.value,
            shown=self.shown.value,
            label=None if self.label.value == _ALL else int(self.label.value),
            highest_first=self.highest.value,
        )
        self.page.value, self.page.max = 1, self.sorted.pages
        self._show_page()
        kept, count = self.sorted.counts
        of_class = "" if self.label.value == _ALL else f" of class {self.label.value}"
        self.counts.value = f"{self.pruner.value} keeps {kept} of {count} images{of_class}; {len(self.sorted.ids)} fit."

    def _show_page(self) -> None:
        page = self.sorted.page(self.page.value - 1)
        self.sheet.value = png(sheet(self.network, page))
        labels = self.network.dataset.train.labels
        named = [
            (f"{id_}: class {int(labels[id_])}, score {score:.3g}", int(id_))
            for id_, score in zip(page.ids, page.scores, strict=True)
        ]
        fill(self.image, named)
        self._show_attack()

    def _show_attack(self) -> None:
        if self.image.value is None:
            self.attacked.value, self.says.value = b"", "No image fits."
            return
        found = attack_image(self.network, self.image.value, attack=self.attack.value, eps=self.eps.value)
        self.attacked.value = png(attack_figure(found))
        self.says.value = found.text()
