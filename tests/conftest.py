"""Two lanes for two cores, `pytest -n 2`: whole runs one after another in one, everything else beside them."""

from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "runs" if nodeid.startswith("tests/runs/") else "rest"

    return Lanes(config, log)
