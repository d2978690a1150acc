"""Settings for all tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # On tiny tensors, threads cost more than they save.
    import torch

    torch.set_num_threads(1)
