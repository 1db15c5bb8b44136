"""The answer of a study as text, JSON, HTML, CSV and figures; it knows no store. Imports `study` and the folders below."""
