"""Projections, steps and random points against float64 and SciPy; hypothesis for the laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import kstest
from torch import Tensor

from advprune_core.attacks.geometry import Norm, ThreatModel, ascend, project, random_point, threat_model, unit
from advprune_core.base.settings import AdvpruneError, ConfigError

LAW = settings(derandomize=True)
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
        ({"norm": "l1"}, "unknown norm 'l1'.*allowed: l2, linf"),
        ({"norm": "Lingf"}, "did you mean 'linf'"),
        ({"norm": 2}, "'linf' or 'l2'"),
        ({"eps": 8}, "more than the whole range of a pixel.*'8/255'"),
        ({"eps": 1.01, "norm": "inf"}, "at most 1 in L-inf"),
        ({"epsilon": 0.1}, "did you mean 'eps'"),
    ],
)
def test_threat_models_that_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ThreatModel.create(**settings)


@pytest.mark.parametrize("norm", ["linf", "Linf", "L-inf", "l_inf", "inf", "INF"])
def test_spellings_of_linf(norm: str) -> None:
    assert ThreatModel.create(norm=norm).norm == "linf"


@pytest.mark.parametrize("norm", ["l2", "L2", "L_2", "l-2", "2"])
def test_spellings_of_l2(norm: str) -> None:
    assert ThreatModel.create(norm=norm, eps=8).norm == "l2", "an L2 radius may be larger than 1"


def test_a_threat_model_or_its_parts() -> None:
    threat = ThreatModel(norm="l2", eps=0.5)
    assert threat_model(threat, None, None) is threat
    assert threat_model(None, "L2", "1/2") == threat
    assert threat_model(None, None, "8/255") == ThreatModel()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, None), "the radius is missing: give eps in units of .0, 1., a number or '8/255'"),
        ((ThreatModel(), "linf", None), "not both"),
        ((ThreatModel(), None, 0.1), "not both"),
        (("linf", None, None), "threat must be a ThreatModel"),
        ((None, "linf", True), "eps must be a number above 0.*not True"),
        ((None, "linf", "eight"), "eps must be a number above 0, or a ratio such as '2/255', not 'eight'"),
        ((None, "linf", float("inf")), "eps must be a number above 0"),
        ((None, "linf", -0.1), "eps must be a number above 0.*not -0.1"),
        ((None, "l1", 0.1), "unknown norm 'l1'"),
        ((None, 2, 0.1), "'linf' or 'l2'"),
    ],
)
def test_what_is_no_threat_model(given: tuple, message: str) -> None:
    with pytest.raises(AdvpruneError, match=message):
        threat_model(*given)


@LAW
@given(SEEDS, st.sampled_from([1.0, 1e-10, 1e-19, 1e-30, 1e-37, 1e15, 1e30, 1e37]))
def test_unit_vectors_of_any_size(seed: int, size: float) -> None:
    """In float32 the square of 1e-23 is 0 and that of 1e23 infinite: float64 knows better."""
    vectors = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * size
    exact = vectors.double().flatten(1)
    expected = exact / exact.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(unit(vectors).flatten(1).numpy(), expected.numpy(), atol=1e-6)


def test_subnormal_vectors_still_point_somewhere() -> None:
    vectors = torch.tensor([[3e-45, -3e-45], [0.0, 0.0]])
    np.testing.assert_allclose(unit(vectors), [[0.5**0.5, -(0.5**0.5)], [0.0, 0.0]], atol=1e-6)


@LAW
@given(SEEDS, st.sampled_from([-100, -30, 0, 3, 60]))
def test_a_power_of_two_changes_no_bit_of_a_step(seed: int, power: int) -> None:
    x, gradient = draw(seed + 1)
    for norm in ("linf", "l2"):
        plain, times = (ascend(x, gradient * factor, norm=norm, step_size=0.1) for factor in (1.0, 2.0**power))
        assert torch.equal(plain, times)


@pytest.mark.parametrize("uniform", ["radius", "volume"])
def test_random_points_fill_what_they_say(uniform: str) -> None:
    """Against the distribution functions: r in units of eps, or r ** d of d pixels, are uniform."""
    generator = torch.Generator().manual_seed(0)
    x, noise, radius = torch.full((4000, 1, 2, 3), 0.5), torch.randn(4000, 1, 2, 3, generator=generator), None
    radius = torch.rand(4000, generator=generator)
    moved = random_point(x, noise, radius, norm="l2", eps=0.3, uniform=uniform) - x
    reach = (moved.flatten(1).norm(dim=1) / 0.3).double().numpy()
    assert kstest(reach if uniform == "radius" else reach**6, "uniform").pvalue > 0.01
    assert reach.mean() == pytest.approx(0.5 if uniform == "radius" else 6 / 7, abs=0.02)
