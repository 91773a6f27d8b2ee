"""Measures of how good a heatmap is. Arrays in, numbers out; the model is asked, never known.

- `energy_in_mask`: the share of each heatmap that falls inside its mask.
- `rank_accuracy`: which share of its hottest positions is inside.
- `pointing_game`: whether each heatmap is highest inside its mask.
- `draw_mosaics`, `mosaic`, `grid_pointing_game`: several pictures in one, and which of them a map
  points at.
- `class_sensitivity`, `map_correlation`: how alike the maps of two classes are.
- `parameter_randomisation`: how alike maps stay when the weights are put in random order.
- `robustness`: whether maps stay where the prediction stays under noise, and move where it moves;
  `PERTURBATIONS`, `perturb`, `grid_segments`, `quickshift_segments`, `rank_biased_overlap`, `ssim`
  are its parts.
- `bootstrap`, `friedman`, `pair_tests`, `compare_ranks`: whether methods really differ.
- `deletion`, `insertion`: how the probability goes as the hottest positions go or come.
- `average_drop`, `average_increase`, `average_gain`, `keep_minus_delete`: how sure the model stays
  when it sees what the map shows. `masked_confidence` asks once for the first three.
- `road`: the same with what is removed filled in from its neighbours.
- `keep_top`, `delete_top`, `soft_mask`, `baseline_pictures`: the changed pictures themselves.
- `sparseness`, `complexity`, `effective_complexity`: how concentrated a map is.
- `compare`: all of these for several methods on many images, a `Comparison` with statistics and a
  page; `METRICS`, `register_metric`.
- `robustness_on_files`: `robustness` on files, with a journal and a page.
- `published_drop`, `published_gain`, `published_noise_stability`: what CF-CAM's public code
  measures under known names.

What the functions return is documented with each, in the module of its name; a function that is
called like its module hides it, but ``from cfcam_core.evaluation.road import ...`` finds it.
"""

from cfcam_core.evaluation.bootstrap import bootstrap as bootstrap
from cfcam_core.evaluation.compare import compare as compare
from cfcam_core.evaluation.comparison import Comparison as Comparison
from cfcam_core.evaluation.complexity import complexity as complexity
from cfcam_core.evaluation.complexity import effective_complexity as effective_complexity
from cfcam_core.evaluation.complexity import sparseness as sparseness
from cfcam_core.evaluation.confidence import average_drop as average_drop
from cfcam_core.evaluation.confidence import average_gain as average_gain
from cfcam_core.evaluation.confidence import average_increase as average_increase
from cfcam_core.evaluation.confidence import keep_minus_delete as keep_minus_delete
from cfcam_core.evaluation.confidence import masked_confidence as masked_confidence
from cfcam_core.evaluation.curves import deletion as deletion
from cfcam_core.evaluation.curves import insertion as insertion
from cfcam_core.evaluation.localisation import energy_in_mask as energy_in_mask
from cfcam_core.evaluation.localisation import pointing_game as pointing_game
from cfcam_core.evaluation.localisation import rank_accuracy as rank_accuracy
from cfcam_core.evaluation.masking import baseline_pictures as baseline_pictures
from cfcam_core.evaluation.masking import delete_top as delete_top
from cfcam_core.evaluation.masking import keep_top as keep_top
from cfcam_core.evaluation.masking import soft_mask as soft_mask
from cfcam_core.evaluation.metrics import METRICS as METRICS
from cfcam_core.evaluation.metrics import Case as Case
from cfcam_core.evaluation.metrics import Reading as Reading
from cfcam_core.evaluation.metrics import register_metric as register_metric
from cfcam_core.evaluation.mosaics import draw_mosaics as draw_mosaics
from cfcam_core.evaluation.mosaics import grid_pointing_game as grid_pointing_game
from cfcam_core.evaluation.mosaics import mosaic as mosaic
from cfcam_core.evaluation.noise_run import robustness_on_files as robustness_on_files
from cfcam_core.evaluation.perturbations import NOISES as NOISES
from cfcam_core.evaluation.perturbations import PERTURBATIONS as PERTURBATIONS
from cfcam_core.evaluation.perturbations import Perturbation as Perturbation
from cfcam_core.evaluation.perturbations import perturb as perturb
from cfcam_core.evaluation.protocol import plan_robustness as plan_robustness
from cfcam_core.evaluation.protocol import robustness_of_image as robustness_of_image
from cfcam_core.evaluation.published import published_drop as published_drop
from cfcam_core.evaluation.published import published_gain as published_gain
from cfcam_core.evaluation.published import published_noise_stability as published_noise_stability
from cfcam_core.evaluation.randomisation import parameter_randomisation as parameter_randomisation
from cfcam_core.evaluation.rankings import chance_overlap as chance_overlap
from cfcam_core.evaluation.rankings import rank_biased_overlap as rank_biased_overlap
from cfcam_core.evaluation.rankings import ranking as ranking
from cfcam_core.evaluation.road import road as road
from cfcam_core.evaluation.robustness import Robustness as Robustness
from cfcam_core.evaluation.robustness import robustness as robustness
from cfcam_core.evaluation.segments import grid_segments as grid_segments
from cfcam_core.evaluation.segments import quickshift_segments as quickshift_segments
from cfcam_core.evaluation.segments import segment_means as segment_means
from cfcam_core.evaluation.sensitivity import class_sensitivity as class_sensitivity
from cfcam_core.evaluation.sensitivity import map_correlation as map_correlation
from cfcam_core.evaluation.similarity import SIMILARITIES as SIMILARITIES
from cfcam_core.evaluation.ssim import ssim as ssim
from cfcam_core.evaluation.statistics import compare_ranks as compare_ranks
from cfcam_core.evaluation.statistics import friedman as friedman
from cfcam_core.evaluation.statistics import holm as holm
from cfcam_core.evaluation.statistics import pair_tests as pair_tests
