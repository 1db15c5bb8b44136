"""A fixture for pytest: `assert_batch_invariant`, in every environment in which lrscale is installed. Imports torch when used."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def assert_batch_invariant() -> Callable[..., Any]:
    """Asserts that the same examples, grouped otherwise, give the same update: see `lrscale.assert_batch_invariant`."""
    from lrscale.audit import check

    return check.assert_batch_invariant
