"""What a user's training step does to the gradient, measured on the step itself. Imports torch, and the folders below."""
