"""How a batch is trained on: the loss of each image, where its attack starts, how many steps each image gets.

Knows attacks, and neither pruners nor the loop. PGD-AT's loss is in `pgd_at`, where an attack starts in `starts`,
its steps in `steps`; `policy` puts the two together. To add an objective: a subclass of `base.Objective` in a file
here, registered with `OBJECTIVES`; a `base.Trainer` is the name of an objective with its attack.

A loss of clean and adversarial logits::

    import torch.nn.functional as F

    from advprune_core import OBJECTIVES, Objective


    @OBJECTIVES.register
    class Hinge(Objective):
        "Multi-class hinge loss on adversarial images, attacked by the margin: 2k + 3 an image."

        name = "hinge"
        attack_loss = "margin"

        def per_sample(self, clean, adversarial, y):
            return F.multi_margin_loss(adversarial, y, reduction="none")

How many steps the attack gets, and how long they are::

    from advprune_core import STEPS, Steps


    @STEPS.register
    class Curriculum(Steps):
        "One step at first, one more every five epochs, up to seven."

        name = "curriculum"

        def plan(self, batch, *, eps, logits, state):
            count = min(1 + int(batch.epochs.max()) // 5, 7)
            return count, min(2.5 / count, 1) * eps  # or a tensor of each: steps and step size per image

        def expected(self):
            return 4.0

They compose with all that is there: ``RunConfig.flat(objective="hinge", start="carried", steps="curriculum")``.
"""
