"""How long a pruned run is: with epochs on all data first, or until it costs what all data would."""

from __future__ import annotations

from advprune_core.pruners.base import Pruner, ScheduledPruner


def warm_start(epochs: float, fraction: float, kappa: float, *, plain: int = 0) -> tuple[int, float]:
    """CORDS' warm start: (epochs on all data first, length of the run) that cost ``fraction * epochs``.

    About a share `kappa` of the cost goes into whole epochs on all data, at least one; what is left
    goes into epochs on the subset.

    Raises
    ------
    ValueError
        If one epoch on all data costs as much as the run may; `plain` epochs, which cost less than the others.

    References
    ----------
    Killamsetty et al. 2021 (2103.00123), sec. 5, and the schedule of their public code, which rounds
    both lengths down and so costs a little less.
    """
    if plain:
        raise ValueError(
            f"plain_epochs = {plain} cost less than others, and warm_start makes a run as cheap as its fraction of "
            "those with an attack: set one of them to 0"
        )
    full = max(1, int(kappa * fraction * epochs + 1e-9))
    if full >= fraction * epochs:
        raise ValueError(
            f"warm_start = {kappa:g} needs an epoch on all data, and fraction {fraction:g} of {epochs:g} epochs is "
            f"{fraction * epochs:g}: train longer, keep more, or set warm_start = 0"
        )
    return full, round(full + epochs - full / fraction, 6)


def warmed_up(pruner: Pruner, epochs: int) -> Pruner:
    """A pruner that waits for so many epochs on all data.

    Raises
    ------
    ValueError
        One that cannot wait, or has another length of its own to wait for.
    """
    if (
        not isinstance(pruner, ScheduledPruner)
        or pruner.scout_epochs()
        or pruner.warmup_epochs not in (epochs, type(pruner).model_fields["warmup_epochs"].default)
    ):
        raise ValueError(
            f"warm_start says how long the pruner {pruner.name!r} waits: it needs one that can (such as 'random'), "
            "without warmup_epochs or score_epochs of its own"
        )
    return pruner.replace(warmup_epochs=epochs)


def check_share(pruner: Pruner, fraction: float, *, size: int) -> None:
    """Refuse a pruner whose epochs may cost another share of one on all data than the fraction, selection aside.

    They cost that where as many images are kept, or where each update of `size` images is chosen from
    ``size / fraction``.

    Raises
    ------
    ValueError
        Any other.
    """
    drawn, narrows = pruner.candidates(size, fraction), type(pruner).candidates is not Pruner.candidates
    if drawn != (size if pruner.exact else round(size / fraction)) or not (pruner.exact or narrows):
        raise ValueError(
            f"warm_start and equal_cost take an epoch to cost the fraction of one on all data, and the pruner "
            f"{pruner.name!r} may keep another share (exact = False): set epochs, or choose one that keeps the "
            "fraction, as most do (such as 'random'), or that of each batch ('loss_top')"
        )


def lengthened(pruner: Pruner, epochs: float, fraction: float, *, plain: int = 0) -> float:
    """Epochs after which a pruned run has cost what `epochs` on all data cost, selection aside.

    Its warm-up on all data stays as long as it is; each later epoch costs the fraction of one.

    Raises
    ------
    ValueError
        A pruner whose selections depend on the length of the run; `plain` epochs beyond its warm-up, which cost
        less than the others.
    """
    if not pruner.steady:
        raise ValueError(
            f"equal_cost lengthens a run, and what the pruner {pruner.name!r} keeps depends on its length: set epochs"
        )
    if plain > pruner.epochs_before():
        raise ValueError(
            f"plain_epochs = {plain} cost less than others, and equal_cost takes those on a part of the data for "
            "attacked ones: let a pruner that can wait for as many (warmup_epochs), or set epochs instead"
        )
    before = min(float(pruner.epochs_before()), epochs)
    return round(before + (epochs - before) / fraction, 6)
