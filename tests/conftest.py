"""Settings for all tests."""

from __future__ import annotations

import pytest

# Cases of a large table that the default run takes.
TABLE = 6


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # On tiny tensors, threads cost more than they save.
    import torch

    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but a few cases of each large table as slow, the few spread evenly over the table."""
    tables: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("table"):
            tables.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in tables.values():
        every = -(-len(cases) // TABLE)
        for number, case in enumerate(cases):
            if number % every:
                case.add_marker("slow")
