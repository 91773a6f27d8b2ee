"""cfcam: where an image classifier looked, from any framework.

>>> import numpy as np
>>> import cfcam_core as cfcam
>>> activations, gradients = np.random.default_rng(0).normal(size=(2, 16, 7, 7)).astype("f")
>>> cfcam.explain_arrays(activations, gradients, size=(64, 64)).heatmaps.shape
(1, 64, 64)
"""

from cfcam_core import evaluation as evaluation
from cfcam_core.backend import Backend as Backend
from cfcam_core.backend import Layer as Layer
from cfcam_core.cam import Cam as Cam
from cfcam_core.capture import Capture as Capture
from cfcam_core.errors import BackendNotFoundError as BackendNotFoundError
from cfcam_core.errors import BackendUnavailableError as BackendUnavailableError
from cfcam_core.errors import BlankMapWarning as BlankMapWarning
from cfcam_core.errors import CfcamError as CfcamError
from cfcam_core.errors import InvalidInputError as InvalidInputError
from cfcam_core.errors import LayerNotFoundError as LayerNotFoundError
from cfcam_core.errors import UndefinedMeasureWarning as UndefinedMeasureWarning
from cfcam_core.errors import UnsupportedOpError as UnsupportedOpError
from cfcam_core.explainer import explain as explain
from cfcam_core.explainer import explain_arrays as explain_arrays
from cfcam_core.explanation import Explanation as Explanation
from cfcam_core.methods import methods as methods
from cfcam_core.methods import register_method as register_method
from cfcam_core.registry import backends as backends
from cfcam_core.registry import open_model as open_model
from cfcam_core.settings import Settings as Settings

__version__ = "0.1.0"
