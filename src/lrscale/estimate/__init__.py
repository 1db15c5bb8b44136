"""Estimates from numbers: the best lr, fits, and their intervals. Imports numpy, scipy and the root."""
