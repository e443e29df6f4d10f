"""Two lanes for two cores, `pytest -n 2`: whole runs one after another in the first, all other folders of tests in the second.

The lane that has no more of its own takes what is left of the other's.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

LONG, FIRST = "tests/runs/", "gw0"
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # one under load is slow, which is no fault of what is tested


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file.startswith(LONG) else file.rpartition("/")[0]

        def _assign_work_unit(self, node: Any) -> None:
            of_runs = node.gateway.id == FIRST
            if own := next((scope for scope in self.workqueue if scope.startswith(LONG) == of_runs), None):
                self.workqueue.move_to_end(own, last=False)
            super()._assign_work_unit(node)

    return Lanes(config, log)
