"""Holds a study as values: the plan (what is asked), the records, and the answer. Imports `probes` and the folders below it."""
