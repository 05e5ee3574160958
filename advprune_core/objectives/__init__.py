"""How a batch is trained on: the loss of each image, where its attack starts, how many steps each image gets.

Knows attacks, and neither pruners nor the loop. PGD-AT's loss is in `pgd_at`, where an attack starts in `starts`,
its steps in `steps`; `policy` puts the two together. To add an objective: a subclass of `base.Objective` in a file
here, registered with `OBJECTIVES`; a `base.Trainer` is the name of an objective with its attack.
"""
