"""``cfcam demo``: the library's main job on a small model and scenes that come with the package.

The model and the scenes are made by ``examples/digit_scenes/train.py``. Needs ``[onnx,cli]``.
"""

from cfcam_core.demo.run import run_demo as run_demo
