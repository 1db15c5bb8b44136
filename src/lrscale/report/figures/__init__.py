"""The figures: the only folder that imports matplotlib and plotly."""
