"""Pruners: which training images to keep."""

from advprune_core.pruners.base import PRUNERS, Context, Pruner, Selection, budget

__all__ = ["PRUNERS", "Context", "Pruner", "Selection", "budget"]
