"""Training of many runs as one tensor program, and the plain loop that checks it. Imports torch, `law` and `tasks`."""
