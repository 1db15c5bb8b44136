"""A study as values: what is asked (the plan), what was recorded, and the answer. Imports `probes` and below."""
