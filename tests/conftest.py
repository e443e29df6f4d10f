"""Two lanes for two cores, `pytest -n 2`: the long whole runs one after another in the first, all other folders of tests in turn in whichever is free."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

LONG = "tests/runs"
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # one under load is slow, which is no fault of what is tested


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("::")[0].rpartition("/")[0]

        def _assign_work_unit(self, node: Any) -> None:
            if LONG in self.workqueue:
                self.workqueue.move_to_end(LONG, last=False)
            super()._assign_work_unit(node)

    return Lanes(config, log)
