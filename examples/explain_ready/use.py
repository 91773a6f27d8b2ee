"""The explain-ready file in Python: onnxruntime runs it, cfcam_core finishes the map.

python use.py [digit]
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

from cfcam_core import explain_arrays, png
from cfcam_core.images import read_image

HERE = Path(__file__).parent


def main() -> None:
    """Explain the scene by CF-CAM and by the map that the file makes itself; write pictures."""
    digit = int(sys.argv[1]) if len(sys.argv) > 1 else -1  # -1: whichever has the largest logit
    scene = read_image(HERE / "scene.png")
    session = onnxruntime.InferenceSession(
        HERE / "digits.explain.onnx", providers=["CPUExecutionProvider"]
    )
    gray = scene[None, None, :, :, 0].astype(np.float32) / 255
    logits, activations, gradients, _, heatmap = session.run(
        ["logits", "activations", "gradients", "map", "heatmap"],
        {"image": gray, "class_index": np.array([digit])},
    )
    shown = digit if digit >= 0 else logits[0].argmax()
    print(f"digit {shown}, logit {logits[0, shown]:.3f}")

    size = scene.shape[:2]
    cf_cam = explain_arrays(activations, gradients, size=size)
    grad_cam = explain_arrays(activations, gradients, size=size, method="grad-cam")
    apart = abs(grad_cam.heatmaps - heatmap).max()
    print(f"Grad-CAM in the file and in cfcam_core differ by {apart:.1e}")
    peak = np.unravel_index(heatmap[0].argmax(), size)
    print(f"sum {heatmap.sum():.2f}, highest at row {peak[0]}, column {peak[1]}")

    large = scene.repeat(4, axis=0).repeat(4, axis=1)
    pictures = np.hstack([large, cf_cam.overlay(large), grad_cam.overlay(large)])
    png.write(HERE / "use-py.png", pictures)
    print("use-py.png: the scene, CF-CAM, Grad-CAM")


if __name__ == "__main__":
    main()
