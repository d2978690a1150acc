from __future__ import annotations

import pytest
from torch import nn

from .masks import trained


@pytest.fixture(scope="session")
def plain_net() -> nn.Module:
    """Return a plainly trained network on digits."""
    return trained()
