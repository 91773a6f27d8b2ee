"""One specification, one backend a process: ``pytest tests/conformance --backend NAME``.

Without ``--backend`` the specification is not collected; `test_backends.py` runs it in a process
for each backend. With it nothing else is, and a backend that is unknown or missing fails.
"""

from __future__ import annotations

from typing import Any

import pytest
from conformance_nets import FRAMEWORKS, NETS, Framework, Net, framework, golden

import cfcam_core as cfcam

SPECIFICATION = {"test_specification.py", "test_randomised.py"}


def pytest_ignore_collect(collection_path: Any, config: pytest.Config) -> bool | None:
    """Collect either the specification or what runs it."""
    name = config.getoption("backend")
    if collection_path.suffix != ".py" or collection_path.name == "conftest.py":
        return None
    if name is not None and name not in FRAMEWORKS:
        raise pytest.UsageError(f"--backend {name} is unknown; allowed are {', '.join(FRAMEWORKS)}")
    return True if (collection_path.name in SPECIFICATION) != (name is not None) else None


@pytest.fixture(scope="session")
def made(request: Any) -> Framework:
    """Return the builder; where its framework is not installed, every test fails."""
    return framework(request.config.getoption("backend"))


@pytest.fixture(scope="session", params=NETS)
def net(request: Any) -> Net:
    return golden(request.param)


@pytest.fixture(scope="session")
def model(made: Framework, net: Net) -> Any:
    return made.build(net, softmax=False)


@pytest.fixture(scope="session")
def x(made: Framework, net: Net) -> Any:
    return made.turned(net.x)


@pytest.fixture(scope="session")
def backend(model: Any, x: Any) -> cfcam.Backend:
    """Return the model opened; its first inputs show the layers, where it does not say them."""
    opened = cfcam.open_model(model)
    opened.capture(x)
    return opened
