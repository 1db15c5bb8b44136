"""An answer as text, JSON, HTML, CSV and figures; knows no store. Imports `study` and below."""
