"""Unpacks what an HTML report holds in packed form: figures, and the program of the interactive figure."""

import base64
import gzip
import re


def unpacked(page: str) -> list[str]:
    """Returns the packed parts of a page, in their order."""
    return [gzip.decompress(base64.b64decode(text)).decode() for text in re.findall(r'data-packed="([^"]+)"', page)]
