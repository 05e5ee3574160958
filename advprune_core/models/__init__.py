"""Networks from images in [0, 1] to logits; they normalise inside. And how a network is asked without a trace.

Knows data sets, for their shape and statistics, and no attack. To add one: a subclass of `base.ModelSettings` in a
file here, registered with `MODELS`; one of your own needs no change: ``"module:factory"``.
"""
