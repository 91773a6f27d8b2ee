"""What a plugin implements: four methods, and more if it can.

Anything wanted in two backends belongs in the core.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import Capture


@dataclass(frozen=True, slots=True)
class Layer:
    """A place in a model that can be explained."""

    name: str
    """Name that `layer=` takes."""
    shape: tuple[int | None, ...]
    """Shape of its output as the framework has it, batch first; None where it is not fixed."""
    kind: str
    """Operator or layer class that makes it, such as ``Conv`` or ``Relu``."""
    is_default: bool = False
    """Whether ``layer=None`` means this one."""
    module: str = ""
    """Dotted path of the module that makes it, where the model has one; ``layer=`` takes it too."""


@runtime_checkable
class Backend(Protocol):
    """One opened model. Safe to share between threads; leaves no trace on the user's model."""

    @abstractmethod
    def layers(self) -> Sequence[Layer]:
        """Return what can be explained, in the order of execution, one marked as the default."""

    @abstractmethod
    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Run the model and return activations, gradients, scores and targets.

        Parameters
        ----------
        inputs : array_like
            Batch in the framework's own layout, preprocessed; one unbatched sample where that is
            unambiguous.
        layer : optional
            Name, object of the framework, index into `layers`, or None for the default.
        target : optional
            See `cfcam_core.targets.resolve_targets`.
        """

    @abstractmethod
    def scores(self, inputs: Any) -> NDArray[np.float32]:
        """Return the logits, shape (N, K)."""

    @abstractmethod
    def scores_from(
        self, activations: Any, inputs: Any, *, layer: Any = None
    ) -> NDArray[np.float32]:
        """Return the logits with the layer's output replaced by `activations`, shape (N, C, *s)."""


class Described(Protocol):
    """What a `Backend` may say besides of its model, as plain attributes; all can be left out.

    Image files need `input_shape`. Methods and measures that ask the model need to know where its
    channels are: where `input_layout` is missing, they look at the layer ``input``.
    """

    input_shape: tuple[int | None, ...] | None
    """Of the first input, batch first; None where any size is taken, or for all."""
    input_layout: str
    """``channels_first`` or ``channels_last``. It may change with the first run, not after."""
    input_dtype: np.dtype[Any]
    """Of the first input. Default: float32."""
    input_names: tuple[str, ...]
    """Of all inputs that must be given."""
    logits_behind: tuple[str, ...]
    """What was looked through to the logits, the last first: a softmax or sigmoid, in any spelling.
    Without a sigmoid among them, several logits are taken for those of a softmax."""


@runtime_checkable
class SeveralLayers(Protocol):
    """What a `Backend` may offer besides: several layers for the price of one run.

    Without it, `cfcam_core.explain` captures one layer after the other.
    """

    @abstractmethod
    def captures(
        self, inputs: Any, *, layers: Sequence[Any], target: Any = None
    ) -> Sequence[Capture]:
        """Run the model once and return what `Backend.capture` gives for each layer, in order.

        Parameters
        ----------
        inputs, target : optional
            As for `Backend.capture`; a target is resolved once.
        layers : sequence
            Each as for `Backend.capture`; the same may come twice.
        """


@runtime_checkable
class Randomisable(Protocol):
    """What a `Backend` may offer besides: itself with other weights, for sanity checks."""

    @abstractmethod
    def weight_names(self) -> Sequence[str]:
        """Return the weights that `randomised` changes, in the order of the model."""

    @abstractmethod
    def randomised(self, seed: int, *, last: int | None = None) -> Backend:
        """Return a copy of the model, opened, with the values of its weights in random order.

        Each weight keeps its values, so their distribution too, and only their places are drawn
        anew. Weights are what `cfcam_core.shuffling.is_weight` says; biases and norms stay. The
        model itself is left as it is.

        Parameters
        ----------
        seed : int
            The same gives the same weights.
        last : int, optional
            Change only so many weights, counted from the output. Default: all.

        Raises
        ------
        InvalidInputError
            The model cannot be copied, has no such weights, or fewer than `last`.
        """
