"""Measures of how good a heatmap is. Arrays in, numbers out; nothing here knows a model.

- `energy_in_mask`: the share of each heatmap that falls inside its mask.
- `pointing_game`: whether each heatmap is highest inside its mask.
"""

from cfcam_core.evaluation.localisation import energy_in_mask as energy_in_mask
from cfcam_core.evaluation.localisation import pointing_game as pointing_game
