"""Published studies: their files, the table of all of them, and reproducing one. Imports `run` and below."""
