"""The networks: shapes, sizes that the field knows, torchvision as an oracle, seeds, own models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import MODELS, Normalise, build_model, check_model
from advprune_core.models.resnets import PreActBlock

NAMES = sorted(MODELS.classes())
WIDTHS = {"small_cnn": 3, "preact_resnet18": 2, "resnet18": 2, "wrn_28_10": 1}


def dataset(channels: int, size: tuple[int, int], classes: int = 10) -> Dataset:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 200, (classes * 8, channels, *size), dtype=np.uint8)
    y = np.arange(len(x)) % classes
    return dataset_from_arrays(x, y, x, y)


def small(name: str) -> Any:
    return MODELS.parse({name: {"width": WIDTHS.get(name, 2)}})


@pytest.mark.parametrize(
    ("channels", "size", "classes"), [(1, (8, 8), 10), (1, (28, 28), 10), (3, (32, 32), 100), (3, (9, 12), 2)]
)
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_gradients(name: str, channels: int, size: tuple[int, int], classes: int) -> None:
    data = dataset(channels, size, classes)
    model = build_model(small(name), data)
    x = data.train.pixels(slice(0, 4)).requires_grad_()
    logits = model(x)
    assert logits.shape == (4, classes)
    assert torch.isfinite(logits).all()
    logits[:, 0].sum().backward()
    assert (x.grad != 0).any()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    torch.testing.assert_close(model(x)[:1], model(x[:1]), atol=1e-5, rtol=1e-4)
    check_model(model, data)


#: Published sizes for CIFAR-10. The widely used PreActResNet-18 without the final BatchNorm of the
#: paper has 11,171,146 parameters; with it (He et al. 2016b, and Fast AT) come 2 * 512 more.
PUBLISHED = {"resnet18": 11_173_962, "preact_resnet18": 11_171_146 + 2 * 512, "wrn_28_10": 36_479_194}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        network = MODELS.parse(name).network(3, 10, (32, 32))
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[name]


#: Parameters of the networks for CPUs, as counted where they were chosen.
FOR_CPUS = [({}, "309k"), ({"blocks": 2}, "701k"), ({"width": 32}, "1.23M")]


@pytest.mark.parametrize(("settings", "expected"), FOR_CPUS)
def test_parameters_of_the_networks_for_cpus(settings: dict[str, Any], expected: str) -> None:
    network = MODELS.parse({"preact_resnet": settings}).network(3, 10, (32, 32))
    count = sum(p.numel() for p in network.parameters())
    assert expected in (f"{count / 1e3:.0f}k", f"{count / 1e6:.2f}M")


def test_the_stem_halves_the_maps_once() -> None:
    for stem, sides in (("4x4/2", [16, 16, 8, 4, 2]), ("3x3", [32, 32, 16, 8, 4])):
        network = MODELS.parse({"preact_resnet": {"width": 2, "stem": stem}}).network(3, 10, (32, 32))
        x, found = torch.zeros(1, 3, 32, 32), []
        for layer in network[:5]:
            x = layer(x)
            found.append(x.shape[-1])
        assert found == sides


def test_the_family_contains_preact_resnet18() -> None:
    """Two blocks and the 3x3 stem: the same network with the same initial weights."""
    data = dataset(3, (32, 32))
    same = MODELS.parse({"preact_resnet": {"width": 2, "blocks": 2, "stem": "3x3"}})
    first, second = (build_model(settings, data, seed=1).state_dict() for settings in (same, small("preact_resnet18")))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("size", "channels"), [((8, 8), 1), ((28, 28), 1), ((7, 9), 3)])
def test_parameters_of_the_small_cnn(size: tuple[int, int], channels: int) -> None:
    network = MODELS.parse("small_cnn").network(channels, 10, size)
    pixels = -(-size[0] // 2) * -(-size[1] // 2)
    expected = [32 * channels * 9 + 32, 64 * 32 * 9 + 64, 128 * 64 * pixels + 128, 10 * 128 + 10]
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert [sum(p.numel() for p in layer.parameters()) for layer in layers] == expected


def test_parameters_of_the_mnist_cnn() -> None:
    """As in the public code of Wong et al.: 16 and 32 channels, 7 x 7 left of 28 x 28, 100 hidden."""
    network = MODELS.parse("mnist_cnn").network(1, 10, (28, 28))
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    expected = [16 * 16 + 16, 32 * 16 * 16 + 32, 32 * 49 * 100 + 100, 1010]
    assert [sum(p.numel() for p in layer.parameters()) for layer in layers] == expected


def test_resnet18_is_torchvisions_with_a_cifar_stem() -> None:
    ours = MODELS.parse("resnet18").network(3, 10, (32, 32)).eval()
    theirs = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    blocks = [block for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4) for block in stage]
    pairs = [(ours[0], theirs.conv1), (ours[1], theirs.bn1), (ours[-1], theirs.fc)]
    for mine, other in zip(ours[3:11], blocks, strict=True):
        pairs += [(getattr(mine, part), getattr(other, part)) for part in ("conv1", "conv2", "bn1", "bn2")]
        if other.downsample is not None:
            pairs.append((mine.shortcut, other.downsample))
    generator = torch.Generator().manual_seed(0)
    for mine, other in pairs:
        for module in mine.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.1, generator=generator)
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
        other.load_state_dict(mine.state_dict())
    x = torch.rand(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 2), (4, 8, 1), (4, 4, 2)])
def test_preactivation_block(inputs: int, outputs: int, stride: int) -> None:
    block = PreActBlock(inputs, outputs, stride).eval()
    x = torch.randn(2, inputs, 6, 6, generator=torch.Generator().manual_seed(0))
    state = block.state_dict()
    active = F.relu(x / np.sqrt(1 + 1e-5))  # fresh statistics: mean 0, variance 1
    hidden = F.conv2d(active, state["conv1.weight"], stride=stride, padding=1)
    residual = F.conv2d(F.relu(hidden / np.sqrt(1 + 1e-5)), state["conv2.weight"], padding=1)
    same = stride == 1 and inputs == outputs
    shortcut = x if same else F.conv2d(active, state["shortcut.weight"], stride=stride)
    with torch.no_grad():
        torch.testing.assert_close(block(x), residual + shortcut, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_normalisation_is_inside(name: str, channels: int) -> None:
    data = dataset(channels, (8, 8))
    model = build_model(small(name), data).eval()
    pixels = data.train.images.numpy().astype(np.float64) / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    x = data.test.pixels(slice(0, 5))
    normalised = (x.numpy() - mean[:, None, None]) / std[:, None, None]
    seen: list[torch.Tensor] = []
    model[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = model(x)
        torch.testing.assert_close(
            logits, model[1](torch.tensor(normalised, dtype=torch.float32)), atol=1e-3, rtol=1e-3
        )
    np.testing.assert_allclose(seen[0].numpy(), normalised, atol=1e-3)
    assert [type(m) for m in model.modules()].count(Normalise) == 1
    assert not any(isinstance(p, nn.Parameter) for p in model[0].parameters())


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name: str, digits: Dataset) -> None:
    before = torch.get_rng_state()
    models = [build_model(small(name), digits, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)  # and whatever else was drawn does not matter
    models.append(build_model(small(name), digits, seed=0))
    first, again, other, later = ([p.detach() for p in model.parameters()] for model in models)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, later, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


OWN = """
import torch
from torch import nn

def good(hidden=8, classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Dropout(0.5), nn.Linear(hidden, classes))

def no_module():
    return "a network"

def pixels():
    return nn.Conv2d(1, 10, 3)

class Around(nn.Module):
    def __init__(self, change, before=lambda x: x):
        super().__init__()
        self.inner, self.change, self.before = good(), change, before

    def forward(self, x):
        return self.change(self.inner(self.before(x)))

def pair():
    return Around(lambda z: (z, z))

class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

    def forward(self, x):
        return (self.inner(x), self.inner(x)) if self.training else self.inner(x)

def auxiliary():
    return Auxiliary()

def named():
    return Around(lambda z: {"logits": z})

def in_place():
    return Around(lambda z: z, before=lambda x: x.sub_(0.5))

def hidden_in_place():
    return Around(lambda z: z, before=lambda x: x.data.sub_(0.5))

def meta():
    return good().to("meta")

def three_channels():
    return nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, 10))

def fails(size=0):
    return {}["size"]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module with networks of one's own."""
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_networks", raising=False)
    return "own_networks"


def test_own_factory(own: str, digits: Dataset) -> None:
    before = torch.get_rng_state()
    settings = [MODELS.parse(f"{own}:good"), MODELS.parse({f"{own}:good": {"hidden": 5}})]
    models = [build_model(one, digits, seed=0) for one in settings]
    assert torch.equal(torch.get_rng_state(), before)
    assert [model[1].out_features for model in models] == [8, 5]
    assert torch.equal(models[0][1].weight, build_model(settings[0], digits, seed=0)[1].weight)
    assert not torch.equal(models[0][1].weight, build_model(settings[0], digits, seed=1)[1].weight)
    assert all(module.training for module in models[0].modules())  # the check leaves the mode alone
    for one in settings:
        assert MODELS.parse(one.spec()).canonical() == one.canonical()
    assert settings[0].canonical() != settings[1].canonical()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"own_networks:good": {"classes": 9}},
            r"\(2, 9\) for 2 images; digits has 10 classes, so it must be \(2, 10\)",
        ),
        ("own_networks:pixels", r"shape \(2, 10, 6, 6\)"),
        ("own_networks:pair", "an output of type tuple for 2 images.*one tensor of logits .2, classes."),
        ("own_networks:named", "an output of type dict"),
        ("own_networks:auxiliary", "in training mode, the model gives an output of type tuple"),
        ("own_networks:in_place", r"changes its input in place.*x = x \+ 1"),
        ("own_networks:hidden_in_place", "changes its input in place"),
        ("own_networks:meta", "on the meta device"),
        ("own_networks:three_channels", r"cannot take images of shape \(2, 1, 8, 8\)"),
        (
            {"own_networks:fails": {"size": 3}},
            r"own_networks:fails with \{'size': 3\}: KeyError: 'size' \(own_networks.py, line \d+ of fails\)",
        ),
        ("own_networks:no_module", "must be an nn.Module, not str"),
        ("own_networks:absent", "cannot import 'own_networks:absent'"),
        ("no_such_module:factory", "cannot import 'no_such_module:factory'"),
        (nn.Flatten(), r"'module:factory'.*small_cnn.*; a network itself is given to train\(config, dataset, model="),
        (nn.Flatten, "a network itself is given to train"),
        ("smal_cnn", "unknown model 'smal_cnn' .did you mean 'small_cnn'"),
        ({"small_cnn": {"widht": 3}}, "unknown setting 'widht' .did you mean 'width'"),
        ({"small_cnn": {"width": 0}}, "width = 0"),
    ],
)
def test_what_is_refused(spec: Any, message: str, own: str, digits: Dataset) -> None:
    before = digits.train.images.clone()
    with pytest.raises(ConfigError, match=message):
        build_model(MODELS.parse(spec), digits)
    assert torch.equal(digits.train.images, before)


def test_a_check_in_training_mode_leaves_no_trace(digits: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10)).eval()
    before, drawn = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    check_model(model, digits)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(module.training for module in model.modules())


def test_frozen_and_parameterless_models_pass(digits: Dataset) -> None:
    class Pixels(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :10]

    frozen = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
    for model in (frozen, Pixels(), torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))):
        check_model(model, digits)
