"""What the two papers' abstracts claim, and which records can tell whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HELD, NOT_HELD, OPEN = "held", "not held", "cannot tell"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Claim:
    """One claim of an abstract, most of them a number.

    Attributes
    ----------
    paper : str
        arXiv number.
    says : str
        What is claimed, or what the number is of.
    number : float, optional
        Per cent lost (of all images, or of what was robust: the abstract does not say), or how many times cheaper.
    kind : str
        ``loss`` of robust accuracy at a fraction, ``speed-up`` there, or the largest ``speed-up without loss``
        that any pruned run of some ways of training reaches; without a number ``convergence``, sooner near the
        full run's robustness, ``reliability``, fewer runs of some ways of training that collapse, and ``gain``, a
        pruned run that is cheaper and more robust than the full one of its way of training.
    study : str
        Whose records can tell.
    reference : str
        Arm on all the data; of a gain its pruner, in every way of training.
    fraction : float, optional
        Of the arm, which is the reference's own; of convergence all of the study's.
    ways : tuple of str
        Whose pruned runs count: variants; of reliability, arms.
    later : str
        Of a speed-up at a fraction, the arm that is pruned only after some epochs on all the data; of a loss, that
        which keeps the learning rates of the full run's schedule, and ends before these have come down.
    looks : int
        How many times records could have told, seeds having been added after a look: each verdict is then by
        intervals that miss so many times more seldom, or sign tests at such a level (Bonferroni).
    methods : tuple of str
        Pruners that are the paper's own: what they lose is told where a random part decides.
    """

    paper: str
    says: str
    number: float | None
    kind: Literal["loss", "speed-up", "speed-up without loss", "convergence", "reliability", "gain"]
    study: str
    reference: str
    fraction: float | None = None
    ways: tuple[str, ...] = ()
    later: str = ""
    looks: int = 1
    methods: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """The number with its unit; what is better where there is none."""
        if self.number is None:
            return {"convergence": "sooner", "reliability": "fewer", "gain": "both"}[self.kind]
        return f"{self.number:g} %" if self.kind == "loss" else f"{self.number:g}x"


def together(verdicts: Mapping[str, str]) -> str:
    """One verdict, or whose verdict each is: ``held (60 %, 40 %); not held (20 %)``."""
    found = dict.fromkeys(verdicts.values())
    if len(found) == 1:
        return next(iter(found))
    names = {verdict: [name for name, own in verdicts.items() if own == verdict] for verdict in found}
    return "; ".join(f"{verdict} ({' and '.join(own)})" for verdict, own in names.items())


def so_far(verdict: str, missing: int) -> str:
    """A verdict on what was run, where other runs might change it: ``not held so far; 1 run is missing``."""
    return f"{verdict} so far; {missing} run{'s are' if missing > 1 else ' is'} missing" if missing else verdict


_A, _B = "2207.00694", "2302.12366"
_HEADLINE, _LATER = "PGD-7: random", "PGD-7: random warmup_epochs=5"
_SCHEDULE = "PGD-7, schedule of the full run: random"
_PLAIN = ("TRADES, warm start", "TRADES")
_COURSES, _LIVES = "convergence_reliability", "collapse_by_fraction"
_COLLAPSING = ("FGSM: random", "Fast AT: random", "N-FGSM: random", "PGD-2: random")
CLAIMS = (
    # Seeds 3 and 4 came after the first three; of the digits' courses ten came after ten.
    *(
        Claim(
            _A,
            f"CIFAR-10, {100 * kept:g} % kept: adversarial accuracy lost",
            lost,
            "loss",
            "cifar10_cpu",
            _HEADLINE,
            kept,
            later=_SCHEDULE,
            looks=2,
        )
        for kept, lost in ((0.6, 8), (0.2, 14))
    ),
    Claim(_A, "CIFAR-10, 20 % kept: times cheaper", 3, "speed-up", "cifar10_cpu", _HEADLINE, 0.2, later=_LATER),
    Claim(_A, "CIFAR-10, 20 % kept: adversarial accuracy lost", 14, "loss", "cifar10_resnet18", "random", 0.2),
    Claim(_A, "CIFAR-10: in some settings more robust, and cheaper", None, "gain", "cifar10_cpu", "random"),
    Claim(_A, "the same, of the best of these, on other seeds", None, "gain", "both_worlds_cifar10_cpu", "random"),
    Claim(_A, "improved convergence", None, "convergence", _COURSES, "PGD-AT: random", looks=2),
    Claim(_A, "improved reliability", None, "reliability", _LIVES, "FGSM: random", 0.3, _COLLAPSING),
    *(
        Claim(
            _B,
            f"{data}, {says}: times cheaper",
            number,
            "speed-up without loss",
            study,
            reference,
            ways=ways,
            looks=looks,
            methods=("grad_match", "glister"),
        )
        for data, study, says, number, reference, ways, looks in (
            ("CIFAR-10", "gradient_matching_cifar10_cpu", "data pruning", 3.44, "TRADES: random", _PLAIN, 2),
            ("CIFAR-100", "gradient_matching_cifar100_cpu", "data pruning", 2.02, "TRADES: random", _PLAIN, 1),
            *(
                (
                    data,
                    f"gradient_matching_{data.lower().replace('-', '')}_cpu",
                    f"with BulletTrain, {base}",
                    number,
                    f"{base}: random",
                    (f"{base}, BulletTrain, warm start", f"{base}, BulletTrain"),
                    looks,
                )
                for data, base, number, looks in (
                    ("CIFAR-10", "TRADES", 5.66, 2),
                    ("CIFAR-10", "MART", 5.12, 1),
                    ("CIFAR-100", "TRADES", 3.67, 1),
                    ("CIFAR-100", "MART", 3.07, 1),
                )
            ),
        )
    ),
)
