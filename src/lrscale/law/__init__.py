"""Closed forms: laws of the learning rate, edges of stability, and least squares. Imports numpy, scipy and the root."""
