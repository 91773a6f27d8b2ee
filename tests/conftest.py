"""Where the tests find data, and how Hypothesis runs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

VARIABLE = "CFCAM_TEST_DATA"

os.environ["CFCAM_CACHE"] = "off"  # nobody's own cache is read or written, by no process either

settings.register_profile("cfcam", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("cfcam")


def pytest_addoption(parser):
    """Let ``tests/conformance`` be run for one backend."""
    parser.addoption("--backend", help="run the conformance specification for this backend")


def pytest_collection_modifyitems(config, items):
    """Leave `real` tests out where nobody has named their data; a named folder must be there."""
    if VARIABLE in os.environ:
        return
    real = [item for item in items if item.get_closest_marker("real")]
    if real:
        config.hook.pytest_deselected(items=real)
        items[:] = [item for item in items if not item.get_closest_marker("real")]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of pretrained models and photographs."""
    folder = Path(os.environ[VARIABLE])
    if not (folder / "MANIFEST.json").is_file():
        pytest.fail(f"{VARIABLE}={folder} holds no MANIFEST.json")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Return the folder of golden vectors."""
    return Path(__file__).parent / "golden"
