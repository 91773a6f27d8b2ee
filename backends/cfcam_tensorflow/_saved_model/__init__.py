"""TensorFlow SavedModels: a graph and no layers, so layers are named by the scopes in it."""

from cfcam_tensorflow._saved_model.backend import SavedModelBackend as SavedModelBackend
from cfcam_tensorflow._saved_model.backend import open_saved_model as open_saved_model
