"""advprune: which training images to keep for faster adversarial training, and what that costs."""

__version__ = "0.1.0"
