"""Exploring in JupyterLab: finished studies, images under attack, what a budget buys, and training as it happens.

What is shown is computed by plain functions of tables, networks and settings, which need no browser; over them stand
a few `ipywidgets` in `views` and `live`. ``notebooks/explore.ipynb`` is the way in.
"""
