"""What is known in closed form: laws of the learning rate, edges of stability, least squares. Imports numpy, scipy and the root."""
