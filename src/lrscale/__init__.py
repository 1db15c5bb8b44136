"""How the learning rate must scale with batch size when gradients are summed instead of averaged."""

__version__ = "0.1.0"

NUMBERS = 3
"""Bumped whenever equal configs start to give other numbers; part of every cell's identity."""
