"""Which training images to keep, with which weights.

Knows the model, the data and the objective through a `Context`, and neither the loop nor other runs. `advprune list
pruners` names them: the modes of the first paper (`keep_easy`, `keep_hard`, `keep_middle`, `keep_fragile`; 2207.00694),
those of the second (`grad_match`, `glister`; 2302.12366, reconstructions, its code is not public), and the canon of
data pruning, on clean or adversarial outputs: after epochs on all data, or of a network trained for it first
(`score_epochs`, whose cost is selection's).

Weights of mean 1 (`grad_match`, `grad_match_pb`) keep the direction of all data's gradient and lengthen the step, as a
higher learning rate does: records say by how much (`step_ratio`), `weights: matched` undoes it, and the control
`same_step_size` is a random subset with steps as long (`random_steps`). Matching takes seconds that grow with the
square of the images (of a class); where they are more than a twentieth of the run, `block: 512` matches random blocks,
each together with what the ones before have left (results/reference/selection has both).

To add a pruner: a subclass of `Pruner` in a file here, registered with `PRUNERS`; the README has one.
"""

from advprune_core.pruners.base import PRUNERS, Context, ModelPruner, Pruner
from advprune_core.pruners.selection import Selection, budget

__all__ = ["PRUNERS", "Context", "ModelPruner", "Pruner", "Selection", "budget"]
