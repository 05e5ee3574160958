"""Exploring in JupyterLab: finished studies, images under attack, what a budget buys, and training as it happens.

What is shown is computed by plain functions of tables, networks and settings, which need no browser; over them stand
a few `ipywidgets` in `views` and `live`. ``notebooks/explore.ipynb`` is the way in.
"""

from advprune_core.explore.budget_view import WhatIf
from advprune_core.explore.image_view import ImageExplorer
from advprune_core.explore.networks import network_of_run, tiny_network
from advprune_core.explore.sources import overview
from advprune_core.explore.study_view import StudyExplorer

__all__ = ["ImageExplorer", "StudyExplorer", "WhatIf", "network_of_run", "overview", "tiny_network"]
