"""The attack losses against float64 formulas in SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor

from advprune_core.attacks.losses import LOSSES, cross_entropy, dlr, dlr_targeted, kl, margin

LAW = settings(derandomize=True)
logit_pairs = st.tuples(st.integers(1, 5), st.integers(2, 7)).flatmap(
    lambda shape: st.tuples(
        *[arrays(np.float64, shape, elements=st.floats(-20, 20, width=32)) for _ in range(2)],
        arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)),
    )
)


@LAW
@given(logit_pairs)
def test_values(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    logits, reference, labels = case
    rows = np.arange(len(labels))
    wrong = logits.copy()
    wrong[rows, labels] = -np.inf
    expected = {
        "cross_entropy": -log_softmax(logits, axis=1)[rows, labels],
        "kl": rel_entr(softmax(reference, axis=1), softmax(logits, axis=1)).sum(1),
        "margin": wrong.max(1) - logits[rows, labels],
    }
    assert set(expected) == set(LOSSES)
    for name, values in expected.items():
        target = torch.tensor(reference if name == "kl" else labels)
        ours = LOSSES[name](torch.tensor(logits), target)
        assert ours.shape == (len(labels),)
        np.testing.assert_allclose(ours.numpy(), values, rtol=1e-9, atol=1e-9, err_msg=name)


@LAW
@given(logit_pairs)
def test_signs(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    logits, reference, labels = map(torch.tensor, case)
    assert (kl(logits, reference) >= -1e-9).all()
    torch.testing.assert_close(kl(logits, logits), torch.zeros(len(labels), dtype=torch.float64))
    ours = margin(logits, labels)
    unique = logits.topk(2, dim=1).values.diff(dim=1).squeeze(1) != 0
    assert torch.equal((ours > 0)[unique], (logits.argmax(1) != labels)[unique])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_against_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(4, 6, generator=generator, dtype=torch.float64) if name == "kl" else torch.tensor([0, 5, 2, 2])
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, target), (logits,))


@pytest.mark.parametrize(
    ("logits", "reference"),
    [
        ([[0.0, 300.0]], [[300.0, 0.0]]),
        ([[300.0, 0.0]], [[300.0, 0.0]]),
        ([[0.0, 0.0]], [[300.0, 0.0]]),
        ([[1e4, -1e4]], [[-1e4, 1e4]]),
    ],
)
def test_kl_is_finite_where_probabilities_underflow(logits: list, reference: list) -> None:
    z, r = torch.tensor(logits, requires_grad=True), torch.tensor(reference)
    value = kl(z, r)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    gap = np.asarray(logits, np.float64), np.asarray(reference, np.float64)
    log_p, log_q = log_softmax(gap[0], axis=1), log_softmax(gap[1], axis=1)
    np.testing.assert_allclose(value.detach().numpy(), (np.exp(log_q) * (log_q - log_p)).sum(1), rtol=1e-6)
    np.testing.assert_allclose(gradient.numpy(), softmax(gap[0], axis=1) - softmax(gap[1], axis=1), atol=1e-6)


def test_kl_of_a_class_that_both_rule_out() -> None:
    """It is that of the others alone, and so is the gradient."""
    logits, reference = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[1.0, 0.5, -0.2]])
    out = torch.tensor([[-torch.inf]])
    z = torch.cat([logits, out], 1).requires_grad_()
    value = kl(z, torch.cat([reference, out], 1))
    (gradient,) = torch.autograd.grad(value.sum(), z)
    small = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(kl(small, reference).sum(), small)
    torch.testing.assert_close(value, kl(logits, reference))
    torch.testing.assert_close(gradient, torch.cat([expected, torch.zeros(1, 1)], 1))


def _loss_rows(loss: str, rows: slice) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits, reference = torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)
    labels = torch.tensor([0, 4, 1, 1, 3, 2])
    return logits[rows], (reference if loss == "kl" else labels)[rows]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_an_image_does_not_depend_on_the_others(name: str) -> None:
    whole = LOSSES[name](*_loss_rows(name, slice(None)))
    parts = [LOSSES[name](*_loss_rows(name, slice(i, i + 1))) for i in range(6)]
    torch.testing.assert_close(whole, torch.cat(parts))


def test_a_tie_has_no_margin() -> None:
    assert margin(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([1])).item() == 0


def test_cross_entropy_is_in_nats() -> None:
    assert cross_entropy(torch.zeros(1, 10), torch.tensor([3])).item() == pytest.approx(np.log(10))


@LAW
@given(logit_pairs, st.integers(1, 6))
def test_difference_of_logits_ratios(case: tuple[np.ndarray, np.ndarray, np.ndarray], shift: int) -> None:
    """Equations 5 and 6 in NumPy; with two and three classes, what is defined of them."""
    logits, _, labels = case
    classes = logits.shape[1]
    targets = (labels + 1 + shift % (classes - 1)) % classes
    for z, y, t in zip(logits, labels, targets, strict=True):
        ordered = np.sort(z)[::-1]
        spread = ordered[0] - ordered[2] if classes > 2 else 1 - 1e-12
        wide = spread if classes < 4 else ordered[0] - (ordered[2] + ordered[3]) / 2
        one, label, target = torch.tensor(z[None]), torch.tensor([y]), torch.tensor([t])
        expected = -(z[y] - np.delete(z, y).max()) / (spread + 1e-12), -(z[y] - z[t]) / (wide + 1e-12)
        ours = float(dlr(one, label)), float(dlr_targeted(one, label, target))
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
