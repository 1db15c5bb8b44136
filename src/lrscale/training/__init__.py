"""Many runs as one tensor program, and the plain loop it is compared with. Imports torch, `law` and `tasks`."""
