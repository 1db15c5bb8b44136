"""Published studies: their files, their table, and reproducing them. Imports `run` and below."""
