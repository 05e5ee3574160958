"""Projections, steps and random points against float64 and SciPy; hypothesis for the laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from advprune_core.attacks.geometry import Norm, ThreatModel, ascend, check_images, project, random_point
from advprune_core.settings import ConfigError

LAW = settings(deadline=None, derandomize=True)
NORMS = st.sampled_from(["linf", "l2"])
EPS = st.sampled_from([1e-3, 8 / 255, 2 / 16, 0.5, 1.5, 40.0])
SEEDS = st.integers(0, 10_000)
ORDER = {"linf": np.inf, "l2": 2}


def draw(seed: int, n: int = 3, shape: tuple[int, ...] = (2, 4, 4)) -> tuple[Tensor, Tensor]:
    """Images with pixels at exactly 0 and 1, and points anywhere around them."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(n, *shape, generator=generator) * 2 - 0.5).clamp(0, 1)
    return x, x + torch.randn(n, *shape, generator=generator) * (seed % 5) / 4


def distance(a: Tensor, b: Tensor, norm: Norm) -> np.ndarray:
    return np.linalg.norm((a.double() - b.double()).flatten(1).numpy(), ord=ORDER[norm], axis=1)


@LAW
@given(SEEDS, NORMS, EPS)
def test_projections_are_in_ball_and_box(seed: int, norm: Norm, eps: float) -> None:
    x, point = draw(seed)
    ours = project(point, x, norm=norm, eps=eps)
    assert ours.min() >= 0
    assert ours.max() <= 1
    assert (distance(ours, x, norm) <= eps + 1e-6).all()
    torch.testing.assert_close(project(ours, x, norm=norm, eps=eps), ours, atol=1e-6, rtol=0)


@LAW
@given(SEEDS, NORMS, EPS)
def test_projection_in_float64(seed: int, norm: Norm, eps: float) -> None:
    x, point = draw(seed)
    results = project(point, x, norm=norm, eps=eps)
    for image, moved, ours in zip(x.double().numpy(), point.double().numpy(), results.numpy(), strict=True):
        delta = moved - image
        if norm == "linf":
            delta = np.minimum(np.maximum(delta, -eps), eps)
        elif np.sqrt((delta**2).sum()) > eps:
            delta = delta * eps / np.sqrt((delta**2).sum())
        np.testing.assert_allclose(ours, np.clip(image + delta, 0, 1), atol=1e-6)


@pytest.mark.parametrize("seed", range(1, 9))
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_is_the_nearest_point_of_the_ball(norm: Norm, seed: int) -> None:
    # Small steps from the middle of the box, so that only the ball matters.
    generator = np.random.default_rng(seed)
    x, eps = generator.uniform(0.4, 0.6, 4), 0.1
    point = x + generator.normal(0, 0.1, 4)
    inside = {
        "linf": {"type": "ineq", "fun": lambda z: np.concatenate([eps - (z - x), eps + (z - x)])},
        "l2": {"type": "ineq", "fun": lambda z: eps**2 - ((z - x) ** 2).sum()},
    }[norm]
    nearest = minimize(lambda z: ((z - point) ** 2).sum(), x, constraints=[inside], options={"ftol": 1e-14}).x
    tensors = [torch.tensor(v, dtype=torch.float32).view(1, 1, 2, 2) for v in (point, x)]
    np.testing.assert_allclose(project(*tensors, norm=norm, eps=eps).numpy().ravel(), nearest, atol=1e-4)


@LAW
@given(SEEDS, NORMS)
def test_points_inside_stay_where_they_are(seed: int, norm: Norm) -> None:
    x, _ = draw(seed)
    other, _ = draw(seed + 1)
    near = x + (other - x) * 0.1
    torch.testing.assert_close(project(near, x, norm=norm, eps=10.0), near, atol=1e-6, rtol=0)
    assert torch.equal(project(x, x, norm=norm, eps=0.1), x)


@LAW
@given(SEEDS, NORMS, st.sampled_from([0.01, 1.0]))
def test_a_step_is_the_steepest_of_its_length(seed: int, norm: Norm, size: float) -> None:
    x, gradient = draw(seed + 1)
    step = (ascend(x, gradient, norm=norm, step_size=size) - x).double()
    assert (distance(x + step, x, norm) <= size * (1 + 1e-4) + 1e-6).all()
    # By Hölder's inequality no step of this length gains more than size * (dual norm).
    dual = np.linalg.norm(gradient.flatten(1).double().numpy(), ord=1 if norm == "linf" else 2, axis=1)
    gains = (step * gradient).flatten(1).sum(1).numpy()
    np.testing.assert_allclose(gains, size * dual, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_step_sizes_per_image(norm: Norm) -> None:
    x, gradient = draw(3)
    sizes = torch.tensor([0.5, 0.25, 2.0])
    together = ascend(x, gradient, norm=norm, step_size=sizes)
    for row, size in enumerate(sizes.tolist()):
        alone = ascend(x[row : row + 1], gradient[row : row + 1], norm=norm, step_size=size)
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_gradient_no_step(norm: Norm) -> None:
    x, _ = draw(2)
    assert torch.equal(ascend(x, torch.zeros_like(x), norm=norm, step_size=1.0), x)


@LAW
@given(SEEDS, NORMS, EPS)
def test_random_points_are_in_ball_and_box(seed: int, norm: Norm, eps: float) -> None:
    x, _ = draw(seed)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(x.shape, generator=generator) if norm == "linf" else torch.randn(x.shape, generator=generator)
    ours = random_point(x, noise, torch.rand(3, generator=generator), norm=norm, eps=eps)
    assert ours.min() >= 0
    assert ours.max() <= 1
    assert (distance(ours, x, norm) <= eps * (1 + 1e-5) + 1e-6).all()


def test_random_point_linf_maps_noise_onto_the_ball() -> None:
    x, noise = torch.full((1, 1, 1, 4), 0.5), torch.tensor([0.0, 0.25, 0.5, 0.75]).view(1, 1, 1, 4)
    ours = random_point(x, noise, None, norm="linf", eps=0.2)
    torch.testing.assert_close(ours.flatten(), torch.tensor([0.3, 0.4, 0.5, 0.6]))


def test_random_point_l2_has_the_direction_of_the_noise_and_the_radius() -> None:
    x, radius = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0.0, 0.5])
    noise = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    delta = random_point(x, noise, radius, norm="l2", eps=0.2) - x
    np.testing.assert_allclose(delta.flatten(1).norm(dim=1).numpy(), [0.0, 0.1], atol=1e-6)
    assert torch.nn.functional.cosine_similarity(delta[1].flatten(), noise[1].flatten(), dim=0) > 1 - 1e-5


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.0, 1.1], r"\[0, 1\.1\]"),
        ([-0.5, 1.0], r"\[-0\.5, 1\]"),
        ([0.0, 255.0], r"\[0, 255\]"),
        ([0.5, float("nan")], "nan"),
        ([0.5, float("inf")], "inf"),
        ([float("-inf"), 0.5], "inf"),
    ],
)
def test_images_outside_the_box_are_refused(values: list[float], found: str) -> None:
    with pytest.raises(ValueError, match=rf"must lie in \[0, 1\].*{found}.*normalise inside"):
        check_images(torch.tensor(values))


def test_images_in_the_box_pass() -> None:
    check_images(torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(("eps", "value"), [("8/255", 8 / 255), ("2 / 16", 0.125), (0.3, 0.3), ("0.25", 0.25)])
def test_eps_is_a_number_or_a_ratio(eps: float | str, value: float) -> None:
    assert ThreatModel(eps=eps).eps == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": 0}, "eps = 0"),
        ({"eps": -0.1}, "eps = -0.1"),
        ({"eps": "8/0"}, "not a number or a ratio"),
        ({"eps": float("nan")}, "eps"),
        ({"eps": float("inf")}, "eps"),
        ({"norm": "l1"}, "'linf' or 'l2'"),
        ({"epsilon": 0.1}, "did you mean 'eps'"),
    ],
)
def test_threat_models_that_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ThreatModel.create(**settings)
