"""What numbers say: the best lr, fits and their intervals. Imports numpy, scipy and the root."""
