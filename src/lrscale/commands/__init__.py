"""The command line: one module a command. Imports everything below."""
