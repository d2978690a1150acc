"""Settings for all tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # On tiny tensors, threads cost more than they save.
    import torch

    torch.set_num_threads(1)


# Before pytest-xdist reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The tests of a file share what is costly to make, so one process runs them; the conformance kit,
    # the longest file, shares nothing.
    for item in items:
        if item.path.name != "test_conformance.py":
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
