"""Every error a user can meet, each also a subclass of the builtin it refines.

A message says what came, what is allowed and what to do. Errors are raised at the public edge,
once.
"""

from __future__ import annotations


class CfcamError(Exception):
    """Root of all errors raised on purpose by cfcam."""


class BackendNotFoundError(CfcamError, LookupError):
    """No installed backend claims this model."""


class BackendUnavailableError(CfcamError, ImportError):
    """A backend claims this model, but the package it runs on is not installed."""


class LayerNotFoundError(CfcamError, LookupError):
    """The model has no layer of that name, or none that can be explained."""


class UnsupportedOpError(CfcamError, NotImplementedError):
    """The model contains an operator that cannot be differentiated; all of them are listed."""


class InvalidInputError(CfcamError, ValueError):
    """An array, an image, a model file, a class index or a setting is not usable as given."""


class BlankMapWarning(UserWarning):
    """A heatmap shows nothing; the message names the samples and the reason."""


class UndefinedMeasureWarning(UserWarning):
    """A measure has nothing to be computed from and is NaN; the message says what is missing."""
