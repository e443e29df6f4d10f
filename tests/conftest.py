"""Two lanes for two cores, `pytest -n 2 --dist loadgroup`: whole runs one after another in one, everything else beside them."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group("runs" if "runs" in item.path.parent.parts else "rest"))
