"""What is known in closed form: laws of the lr, edges of stability, least squares. Imports numpy, scipy and the root."""
