"""Turns a figure into the picture that MLflow's image chart shows: square, because the chart shows nothing else whole."""

import io

WIDTH_OVER_HEIGHT = 2.4
"""Width of the square over the height of the figure: then the figure is whole in a chart of the summary."""


def card(png: bytes, whole: bool) -> tuple[bytes, bytes]:
    """Returns a figure on a white square, at its top, as PNG and as WebP; the chart shows the second one.

    Args:
      png: the figure.
      whole: whether the chart shows the whole figure; if not, the figure fills its width, and the chart scrolls.
    """
    from PIL import Image

    figure = Image.open(io.BytesIO(png)).convert("RGB")
    side = max(figure.width, round(WIDTH_OVER_HEIGHT * figure.height) if whole else 0)
    square = Image.new("RGB", (side, max(side, figure.height)), "white")
    square.paste(figure, ((side - figure.width) // 2, 0))
    files = []
    for form, options in (("PNG", {"compress_level": 1}), ("WEBP", {"lossless": True, "quality": 0, "method": 0})):
        buffer = io.BytesIO()
        square.save(buffer, form, **options)
        files.append(buffer.getvalue())
    return files[0], files[1]
