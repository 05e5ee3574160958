"""What a network says of a whole split: logits and penultimate features, clean and adversarial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from advprune_core.base.randomness import stream
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.augmentation import Crops
from advprune_core.datasets.splits import Split
from advprune_core.models.mode import device_of, no_trace
from advprune_core.objectives.base import Objective
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.partial import PartialSteps
from advprune_core.objectives.policy import AttackPolicy, BoundAttack
from advprune_core.objectives.starts import RandomStart, Start
from advprune_core.objectives.steps import FixedSteps
from advprune_core.pruners.base import Context, ModelPruner, Pruner
from advprune_core.pruners.branches import Branch, SplitOutputs

#: Images passed at once. Fixed, because another size may give another last bit, and so other ties.
BATCH = 256


class _Room:
    """Outputs of n images, filled batch by batch: batches that are joined in the end would be there twice."""

    def __init__(self, n: int, first: Branch) -> None:
        self.size = 0
        self.branch = Branch(*(part.new_empty(n, part.shape[1]) for part in (first.logits, first.features)))

    def put(self, batch: Branch) -> None:
        rows = slice(self.size, self.size + len(batch.logits))
        self.branch.logits[rows], self.branch.features[rows] = batch.logits, batch.features
        self.size = rows.stop


@contextmanager
def last_layer(model: nn.Module, head: str | None = None) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """During a block, keep (input, output) of the last linear layer in the last pass of `model`.

    Parameters
    ----------
    head : str, optional
        Name of the layer, as in ``model.named_modules()``; default: whichever `nn.Linear` is called last.

    Raises
    ------
    ConfigError
        No such layer, or none at all.
    """
    modules = dict(model.named_modules())
    if head is not None and not isinstance(modules.get(head), nn.Linear):
        known = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        raise ConfigError(
            f"head = {head!r} is not a linear layer of the model; these are: {', '.join(known) or 'none'}"
        )
    layers = (
        [module for module in modules.values() if isinstance(module, nn.Linear)] if head is None else [modules[head]]
    )
    if not layers:
        raise ConfigError("the model has no nn.Linear, so there is no last layer to take gradients of")
    record: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        record[:] = [(inputs[0].detach().clone(), output.detach().clone())]  # what follows may write to them

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield record
    finally:
        for hook in hooks:
            hook.remove()


def branch(model: nn.Module, x: Tensor, *, head: str | None = None, features: bool = True) -> Branch:
    """Logits and penultimate features of images (B, C, H, W), in the model's present mode.

    Without `features` logits alone, of any network, and a matrix of no columns.

    Raises
    ------
    ConfigError
        If features are wanted and the logits are not the output of the last linear layer (or of `head`).
    """
    if not features:
        with torch.no_grad():
            logits = model(x).detach()
        return Branch(logits, logits.new_empty(len(logits), 0))
    with last_layer(model, head) as record, torch.no_grad():
        logits = model(x)
    inputs, output = record[-1] if record else (logits, logits[:0])
    if inputs.dim() != 2 or output.shape != logits.shape or not torch.equal(output, logits):
        name = "its last nn.Linear" if head is None else f"head = {head!r}"
        raise ConfigError(f"the model's logits are not the output of {name}; name the layer that makes them by `head`")
    return Branch(logits.detach(), inputs)


def scoring_policy(policy: AttackPolicy, steps: int | None, *, start: Start | None = None) -> AttackPolicy:
    """The training attack with another number of steps, of its length, or from another start.

    Where it leaves out a part of each batch, every image gets the steps of an attacked one: which part that is
    depends on the batch, and what is scored has none.
    """
    if steps is None and isinstance(policy.steps, PartialSteps):
        policy = policy.replace(steps=policy.steps.replace(share=1.0))
    changes: dict[str, Any] = {} if start is None else {"start": start}
    if steps is not None:
        changes["steps"] = FixedSteps(count=steps, step_size=policy.steps.length_of(policy.radius, steps))
    return policy.replace(**changes) if changes else policy


def split_outputs(
    context: Context,
    split: Split,
    *,
    clean: bool = False,
    adversarial: bool = False,
    steps: int | None = None,
    head: str | None = None,
    half: bool = False,
    features: bool = True,
) -> SplitOutputs:
    """Outputs of the context's model on a split, in eval mode, without a trace in it.

    With k steps: 1 forward-equivalent an image for clean outputs (which the KL attack needs as
    well), 2k + 1 for adversarial ones. Nothing depends on the batch size of training.

    Parameters
    ----------
    context : Context
        Its model, objective, attack, seed and epoch; noise is keyed by those and the image's place.
    split : Split
        Of the context's data set.
    clean, adversarial : bool
        Which branches are wanted.
    steps : int, optional
        Steps of the scoring attack; default: those of the training attack.
    head : str, optional
        See `last_layer`.
    half : bool
        Features as of `Branch.halved`: half of the memory.
    features : bool
        Whether features are wanted; else the network may be any.

    Returns
    -------
    SplitOutputs
        Detached, float32 otherwise, on the model's device.

    Raises
    ------
    ConfigError
        A context without a model; with features, logits that are not the last layer's.
    """
    if context.outputs is not None and split is context.dataset.train:
        return _saved(context.outputs, clean=clean, adversarial=adversarial, half=half)
    model = context.network
    device = device_of(model)
    rooms: dict[str, _Room] = {}

    def keep(name: str, batch: Branch) -> None:
        batch = batch.halved() if half else batch
        rooms.setdefault(name, _Room(len(split), batch)).put(batch)

    with no_trace(model):
        attack = _scoring_attack(context, split, steps) if adversarial else None
        loss = context.objective.attack_loss if context.objective is not None else "cross_entropy"
        needs_clean = attack is not None and (loss == "kl" or attack.policy.steps.uses_logits)
        for ids, x, y in split.batches(BATCH, device):
            at_clean = branch(model, x, head=head, features=features) if clean or needs_clean else None
            logits = None if at_clean is None else at_clean.logits
            if clean and at_clean is not None:
                keep("clean", at_clean)
            if attack is not None:
                target = logits if loss == "kl" and logits is not None else y
                x_adv = attack(_centred(x, y, ids, context), target, loss, clean=logits)
                keep("adversarial", branch(model, x_adv, head=head, features=features))
    kept = (rooms[name].branch if name in rooms else None for name in ("clean", "adversarial"))
    return SplitOutputs(split.labels.to(device), *kept)


def _saved(outputs: SplitOutputs, *, clean: bool, adversarial: bool, half: bool) -> SplitOutputs:
    """Outputs given in place of a model, if they have what is wanted."""
    for name, wanted in (("clean", clean), ("adversarial", adversarial)):
        if wanted and getattr(outputs, name) is None:
            prefix = "adversarial_" if name == "adversarial" else ""
            raise ConfigError(
                f"{name} outputs are needed, and the outputs given have none: give {prefix}logits "
                f"(and {prefix}features, where gradients are taken)"
            )
    kept = (outputs.clean if clean else None, outputs.adversarial if adversarial else None)
    return SplitOutputs(outputs.labels, *(b.halved() if half and b is not None else b for b in kept))


class AttackingPruner(ModelPruner):
    """A pruner that attacks the training images, and may need the last layer's inputs."""

    steps: Annotated[
        int | None, Field(ge=1, le=10_000, description="steps of the scoring attack; none: the training's")
    ] = None
    head: Annotated[str | None, Field(description="name of the last linear layer; none: found")] = None

    @property
    def uses_features(self) -> bool:
        """Whether it looks at the last layer's inputs, and not at logits alone."""
        return True

    def check_model(self, model: nn.Module, images: Tensor) -> None:
        """The last layer must be found, where its inputs are looked at."""
        if self.uses_features:
            with no_trace(model):
                branch(model, images, head=self.head)


class OutputPruner(AttackingPruner):
    """A pruner that looks at the outputs for adversarial images, or for clean ones."""

    steps: Annotated[
        int | None,
        Field(ge=0, le=10_000, description="steps of the scoring attack; 0: clean images; none: as training has them"),
    ] = None

    def for_objective(self, objective: Objective) -> Pruner:
        """Clean images, where no steps are told and training makes no attack."""
        steps = scoring_steps(self.steps, objective)
        return self if steps == self.steps else self.replace(steps=steps)

    def branch(self, context: Context) -> Branch:
        """Outputs for the training images that the settings ask for."""
        return split_branch(context, steps=self.steps, head=self.head, features=self.uses_features)


def scoring_steps(steps: int | None, objective: Objective | None) -> int | None:
    """Steps of a scoring attack: 0 where none are told and training makes no attack, which the run never meets."""
    never = objective is not None and not objective.uses_adversarial
    return 0 if steps is None and never else steps


def split_branch(
    context: Context, *, steps: int | None = None, head: str | None = None, features: bool = True
) -> Branch:
    """Outputs for all training images after `steps` steps of an attack, at 0 for the clean images.

    Parameters and errors as of `split_outputs`, but for `steps`: see `scoring_steps`.
    """
    split, steps = context.dataset.train, scoring_steps(steps, context.objective)
    attacked = steps != 0
    outputs = split_outputs(
        context, split, clean=not attacked, adversarial=attacked, steps=steps, head=head, features=features
    )
    found = outputs.adversarial if attacked else outputs.clean
    assert found is not None
    return found


def _scoring_attack(context: Context, split: Split, steps: int | None) -> BoundAttack:
    """The training attack on the images of a split, which reads what training carries and changes nothing of it."""
    if context.objective is None or context.attack is None:
        raise ConfigError("adversarial outputs need a context with the run's objective and attack")
    own = split is context.dataset.train
    policy = scoring_policy(context.attack, steps, start=None if own else RandomStart())
    # What is carried belongs to the training images.
    state = context.policy if own and context.policy else policy.initial_state(len(split))
    seed = stream(context.seed, "scoring", "train" if own else "held out")
    return policy.bind(context.network, seed=seed, state=state, remembers=False)


def _centred(x: Tensor, y: Tensor, ids: Tensor, context: Context) -> Batch:
    """Images as they are: in the middle of their padded frames, where perturbations are carried in such."""
    epoch = context.epoch if context.model_epoch is None else context.model_epoch
    padding, middle = context.crop_padding, torch.full_like(ids, context.crop_padding)
    crops = Crops(middle, middle, torch.zeros_like(ids, dtype=torch.bool), padding) if padding else None
    return Batch(x, y, ids=ids, epochs=torch.full_like(ids, epoch), crops=crops)
