"""Backends are found by name, loaded only when asked for; a missing one is named with its cure."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

import cfcam_core as cfcam
from cfcam_core import registry


class Plugin(cfcam.Backend):
    def __init__(self, model, **options):
        self.model, self.options = model, options

    def layers(self):
        return []

    def capture(self, inputs, *, layer=None, target=None):
        raise NotImplementedError

    def scores(self, inputs):
        raise NotImplementedError

    def scores_from(self, activations, inputs, *, layer=None):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def forgotten():
    """Leave nothing of what is said here to be installed."""
    yield
    registry._installed.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    """Make entry points of this module's own."""

    def install(**entries):
        points = [EntryPoint(name, value, registry.GROUP) for name, value in entries.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: points)

    return install


@pytest.fixture
def plugin(monkeypatch):
    module = type(sys)("a_plugin")
    module.open_model = Plugin
    module.broken = lambda model: "no backend"
    monkeypatch.setitem(sys.modules, "a_plugin", module)


def test_our_backends_are_registered_without_importing_them():
    code = (
        "import sys, cfcam_core; print(*sorted(cfcam_core.backends()));"
        "assert not {'torch', 'onnx', 'tensorflow', 'cfcam_onnx', 'cfcam_torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    wanted = {"onnx", "torch", "pt2", "keras", "h5", "tensorflow"}
    assert wanted <= set(done.stdout.split())


def test_a_folder_is_known_by_what_is_in_it(installed, plugin, tmp_path):
    installed(pb="a_plugin:open_model")
    with pytest.raises(cfcam.BackendNotFoundError, match="no backend opens the folder"):
        cfcam.open_model(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "notes.txt").touch()
    assert cfcam.open_model(tmp_path).model == tmp_path


def test_what_is_installed_meanwhile_is_found(installed, plugin):
    installed()
    model = type("Mine", (), {"__module__": "framework"})()
    with pytest.raises(cfcam.BackendNotFoundError):
        cfcam.open_model(model)
    installed(framework="a_plugin:open_model")
    assert isinstance(cfcam.open_model(model), Plugin)
    installed(framework="a_plugin:open_model", other="a_plugin:open_model")
    assert isinstance(cfcam.open_model(model, backend="other"), Plugin)


def test_backends_cannot_be_written_to():
    with pytest.raises(TypeError):
        cfcam.backends()["x"] = 1


def test_found_by_type_through_its_ancestors(installed, plugin):
    installed(framework="a_plugin:open_model")
    base = type("Module", (), {"__module__": "framework.nn"})
    model = type("Mine", (base,), {"__module__": "__main__"})()
    opened = cfcam.open_model(model, depth=3)
    assert isinstance(opened, Plugin)
    assert opened.model is model
    assert opened.options == {"depth": 3}
    assert cfcam.open_model(opened) is opened
    with pytest.raises(cfcam.InvalidInputError, match="open already, so depth"):
        cfcam.open_model(opened, depth=4)


def test_found_by_suffix_and_by_name(installed, plugin, tmp_path):
    installed(abc="a_plugin:open_model", other="a_plugin:open_model")
    path = tmp_path / "model.ABC"
    path.touch()
    assert cfcam.open_model(path).model == path
    assert cfcam.open_model(str(path)).model == str(path)
    assert cfcam.open_model(3.5, backend="other").model == 3.5


def test_options_that_a_backend_does_not_take():
    for name in ("torch", "onnx"):
        with pytest.raises(cfcam.InvalidInputError, match="backend does not take depth"):
            cfcam.open_model(object(), backend=name, depth=3)


def test_nothing_claims_it(installed, tmp_path):
    installed(abc="a_plugin:open_model")
    with pytest.raises(
        cfcam.BackendNotFoundError, match=r"opens a builtins.float; installed are abc"
    ):
        cfcam.open_model(3.5)
    with pytest.raises(
        cfcam.BackendNotFoundError, match="no backend is named 'xyz'; installed are abc"
    ):
        cfcam.open_model(3.5, backend="xyz")
    path = tmp_path / "model.xyz"
    path.touch()
    with pytest.raises(cfcam.BackendNotFoundError, match=r"files ending in '.xyz'"):
        cfcam.open_model(path)
    with pytest.raises(LookupError):
        cfcam.open_model(path)


def test_missing_file():
    with pytest.raises(cfcam.InvalidInputError, match=r"no model file 'nowhere\.onnx'"):
        cfcam.open_model("nowhere.onnx")


def test_missing_framework_names_the_command(monkeypatch, tmp_path):
    path = tmp_path / "m.onnx"
    path.touch()
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [n for n in sys.modules if n.startswith("cfcam_onnx")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        cfcam.BackendUnavailableError, match=r'needs onnx.*pip install "cfcam\[onnx\]"'
    ):
        cfcam.open_model(path)


def test_our_own_missing_module_is_a_bug_and_stays_one(installed):
    installed(abc="cfcam_nothing:open_model")
    with pytest.raises(ModuleNotFoundError, match="cfcam_nothing"):
        cfcam.open_model(3.5, backend="abc")


def test_a_plugin_must_return_a_backend(installed, plugin):
    installed(abc="a_plugin:broken")
    with pytest.raises(cfcam.BackendNotFoundError, match="returned a str"):
        cfcam.open_model(3.5, backend="abc")


@pytest.mark.parametrize("ours_first", [True, False])
def test_of_two_that_claim_one_name_ours_wins(monkeypatch, ours_first):
    points = [
        EntryPoint("onnx", f"{name}:open_model", registry.GROUP)._for(SimpleNamespace(name=name))
        for name in (("cfcam", "stranger") if ours_first else ("stranger", "cfcam"))
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert cfcam.backends()["onnx"].value == "cfcam:open_model"
