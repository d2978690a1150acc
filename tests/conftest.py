"""Settings for all tests."""

from __future__ import annotations

import gc
import os

import pytest

# Cases of a table that the default run takes, where the mark does not say how many.
TABLE = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu",
        action="store_true",
        help="run the tests marked gpu, in one process; without it, all tests see only the CPU",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    # Several workers would fight over the memory of one GPU.
    if config.getoption("--gpu"):
        config.option.numprocesses = 0


def pytest_configure(config: pytest.Config) -> None:
    # CUDA reads the variable when it is first used; the processes that tests start inherit it.
    if not config.getoption("--gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # What ten thousand tests and their libraries are made of stays to the end: it need not be looked through.
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # On tiny tensors, threads cost more than they save.
    import torch

    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark all but a few cases of each table as slow, and choose between CPU and GPU.

    The few cases are spread evenly over the table.
    """
    tables: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        if marker := item.get_closest_marker("table"):
            (count,) = marker.args or (TABLE,)
            tables.setdefault((item.nodeid.partition("[")[0], count), []).append(item)
    for (_, count), cases in tables.items():
        every = -(-len(cases) // count)
        for number, case in enumerate(cases):
            if number % every:
                case.add_marker("slow")
    if config.getoption("--gpu"):
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker("gpu")])
        items[:] = [item for item in items if item.get_closest_marker("gpu")]
    for item in items:
        if item.get_closest_marker("gpu"):
            why = _no_gpu() if config.getoption("--gpu") else "needs a GPU: run with --gpu"
            item.add_marker(pytest.mark.skipif(bool(why), reason=why))


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "there is no GPU that torch can use"
