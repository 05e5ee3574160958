"""FAB: its projection against a linear and a quadratic program, its outcome against reference and theory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from advprune_core.attacks import ThreatModel, fab_targeted
from advprune_core.attacks.evaluate import evaluate
from advprune_core.attacks.fab import FABT, to_hyperplane
from advprune_core.attacks.geometry import inside
from advprune_core.datasets.splits import Split

Pair = tuple[Tensor, Tensor]


def shortest(x: np.ndarray, w: np.ndarray, b: float, norm: str) -> float:
    """Length of the shortest move to the hyperplane inside the box, by SciPy."""
    n = len(x)
    if norm == "linf":
        bound = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
        found = linprog(
            np.r_[np.zeros(n), 1],
            A_ub=bound,
            b_ub=np.r_[x, -x],
            A_eq=np.r_[w, 0][None],
            b_eq=[b],
            bounds=[(0, 1)] * n + [(0, None)],
        )
        return float(found.fun)
    found = minimize(
        lambda z: ((z - x) ** 2).sum(),
        x,
        jac=lambda z: 2 * (z - x),
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda z: w @ z - b, "jac": lambda z: w},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return float(np.sqrt(found.fun))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("seed", range(15))
def test_projection_is_the_shortest_move(seed: int, norm: Any) -> None:
    rng = np.random.default_rng(seed)
    x, w = np.clip(rng.uniform(-0.3, 1.3, 9), 0, 1), rng.normal(size=9)
    w[0] = 0.0
    b = float(w @ rng.uniform(0, 1, 9))
    point, normal, offset = (torch.tensor(np.array([value])) for value in (x, w, b))
    move = to_hyperplane(point, normal, offset, norm=norm)[0].numpy()
    assert -1e-12 <= (x + move).min() <= (x + move).max() <= 1 + 1e-12
    assert w @ (x + move) == pytest.approx(b, abs=1e-9)
    length = np.abs(move).max() if norm == "linf" else np.linalg.norm(move)
    assert length == pytest.approx(shortest(x, w, b, norm), abs=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_at_the_edges(norm: Any) -> None:
    x = torch.tensor([[0.2, 0.9], [0.2, 0.9], [0.2, 0.9], [0.2, 0.9]])
    w = torch.tensor([[1.0, -1.0], [1.0, -1.0], [0.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([-0.7, 5.0, 1.0, 0.2])  # on it; beyond the box; no direction; on it
    move = to_hyperplane(x, w, b, norm=norm)
    torch.testing.assert_close(move, torch.tensor([[0.0, 0.0], [0.8, -0.9], [0.0, 0.0], [0.0, 0.0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("norm", "eps", "theirs"), [("linf", 0.125, "Linf"), ("l2", 0.5, "L2")])
@pytest.mark.parametrize("give_up", [False, True])
def test_same_outcome_as_the_reference(
    give_up: bool, norm: Any, eps: float, theirs: str, trained: nn.Module, right: Pair
) -> None:
    x, y = (tensor[:50] for tensor in right)
    peer = FABAttack_PT(
        trained, n_restarts=1, n_iter=20, eps=eps, norm=theirs, device="cpu", targeted=True, n_target_classes=9
    )
    expected = peer.perturb(x, y)
    ours = fab_targeted(trained, x, y, norm=norm, eps=eps, steps=20, give_up=give_up)
    with torch.no_grad():
        broken = [trained(x_adv).argmax(1) != y for x_adv in (expected, ours)]
    assert 5 < broken[0].sum() < 45
    assert (broken[0] ^ broken[1]).sum() <= 1
    assert inside(ours, x, norm=norm, eps=eps).all()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.15)])
def test_a_linear_network_falls_where_theory_says(norm: Any, eps: float) -> None:
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(2, 16)), rng.uniform(0.3, 0.7, (80, 16)).astype(np.float32)
    bias = np.array([0.0, -np.median(x @ (w[1] - w[0]))])
    gap = x @ (w[1] - w[0]) + bias[1]
    reach = eps * (np.abs(w[1] - w[0]).sum() if norm == "linf" else np.linalg.norm(w[1] - w[0]))
    sure = np.abs(np.abs(gap) - reach) > 1e-3
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(w))
        model[1].bias.copy_(torch.tensor(bias))
    split = Split(torch.tensor(x[sure]).view(-1, 1, 4, 4), torch.tensor((gap[sure] > 0).astype(np.int64)))
    outcome = evaluate(model, split, [FABT(steps=10)], threat=ThreatModel(norm=norm, eps=eps))
    assert outcome.robust.tolist() == (np.abs(gap[sure]) > reach).tolist()
    assert 0.1 < outcome.robust.mean() < 0.9
