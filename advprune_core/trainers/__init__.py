"""One run: its settings and key, the loop, batches, schedules, checkpoints, its controls.

Knows all that a run is made of, and nothing of a study. `config.RunConfig` is everything that determines the weights;
`checks.check_run` refuses what cannot be trained; `loop.train` carries it out, and `run.Run` is one that is under way;
`controls.resolve` makes the runs that a pruned one is judged beside (`same_cost`: all the data for as many epochs as
cost the same). To add a schedule: a subclass of `schedules.Schedule`.
"""
