"""Two lanes of like length for two cores, `pytest -n 2`: the long whole runs one after another in one, everything else beside them."""

from typing import Any

import pytest

LONG = "tests/runs/"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "long" if nodeid.startswith(LONG) else "rest"

    return Lanes(config, log)
