"""What a model returns: where the logits are in it, and what closes them off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cfcam_core.errors import InvalidInputError

CLOSING = {
    "softmax": "Softmax",
    "special_softmax": "Softmax",
    "log_softmax": "LogSoftmax",
    "special_log_softmax": "LogSoftmax",
    "sigmoid": "Sigmoid",
    "special_expit": "Sigmoid",
    "logsigmoid": "LogSigmoid",
    "log_sigmoid": "LogSigmoid",
}
"""Functions that turn logits into probabilities or their logarithms, and what they are called."""

SHAPING = frozenset(
    {
        *("__getitem__", "_to_copy", "clone", "contiguous", "flatten", "float", "reshape"),
        *("squeeze", "to", "unsqueeze", "view"),
    }
)
"""Functions behind which the numbers are still the same."""


class Output(NamedTuple):
    """A model's output as a classifier's."""

    raw: Any
    logits: Tensor | None
    """(N, K); None where the output is no classifier's."""
    behind: tuple[str, ...] = ()
    """What was looked through to the logits, the last first."""


class Closing(TorchFunctionMode):  # type: ignore[misc]
    """Remembers what the closing functions of a run have read."""

    def __init__(self) -> None:
        super().__init__()
        self._read: dict[int, tuple[Tensor, Tensor, str]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function; what it reads is kept until the run is over."""
        del types
        given = getattr(func, "__name__", "").split(".")[0]
        name = given if given in SHAPING else given.strip("_")
        if name not in CLOSING and name not in SHAPING:
            return func(*args, **(kwargs or {}))
        source = args[0] if args else next(iter((kwargs or {}).values()), None)
        in_place = given.endswith("_") and name in CLOSING
        kept = source.clone() if in_place and isinstance(source, Tensor) else source
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and isinstance(kept, Tensor) and _is_whole(given, args):
            self._note(name, kept, made)
        return made

    def opened(self, output: Tensor) -> tuple[Tensor, tuple[str, ...]]:
        """Return what an output was before it was closed off, and by what, the last first."""
        behind: list[str] = []
        while (found := self._read.get(id(output))) is not None and found[0] is output:
            _, output, name = found
            behind.append(name)
        return output, tuple(behind)

    def _note(self, name: str, source: Tensor, made: Tensor) -> None:
        before = self._read.get(id(source))
        if name in CLOSING:
            if made is not source and not (before and before[0] is source):
                self._read[id(made)] = (made, source, CLOSING[name])
        elif before is not None and before[0] is source and made is not source:
            self._read[id(made)] = (made, *before[1:])


def _is_whole(name: str, args: Any) -> bool:
    """Return whether a function leaves all numbers as they are; an index may take some only."""
    if name != "__getitem__":
        return True
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    return all(one is None or one is Ellipsis or one == slice(None) for one in index)


def first_tensor(output: Any) -> Tensor | None:
    """Return the first floating tensor in what a module returns, or None."""
    return next((one for one in tensors_of(output) if one.is_floating_point()), None)


def tensors_of(output: Any) -> list[Tensor]:
    """Return all tensors in what a module returns."""
    if isinstance(output, Tensor):
        return [output]
    return [tensor for value in _values(output) for tensor in tensors_of(value)]


def with_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    """Return what a module returns with one tensor replaced."""
    if output is old:
        return new
    if isinstance(output, dict):
        made = {key: with_tensor(value, old, new) for key, value in output.items()}
        return made if type(output) is dict else type(output)(**made)
    if isinstance(output, tuple | list):
        parts = [with_tensor(value, old, new) for value in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    if is_dataclass(output) and not isinstance(output, type):
        kept = {one.name: getattr(output, one.name) for one in fields(output)}
        return type(output)(**{name: with_tensor(v, old, new) for name, v in kept.items()})
    return output


def find_output(raw: Any, samples: int, output: Any, closing: Closing | None) -> Output:
    """Return the logits in a model's raw output.

    Parameters
    ----------
    raw : object
    samples : int
        Number of samples N.
    output : str, int, callable or None
        What the user says of where they are.
    closing : Closing, optional
        What has watched the run; None where nothing is looked through.

    Raises
    ------
    InvalidInputError
        What the user has named is not there or no classifier's.
    """
    named = _chosen(raw, output)
    chosen = logits_of(named)
    if chosen is None:
        if output is not None:
            raise InvalidInputError(
                f"output={_said(output)} gives {shown(named)} of {shown(raw)}, which the model "
                f"returns; {_ADVICE}"
            )
        return Output(raw, None)
    behind: tuple[str, ...] = ()
    if closing is not None:
        chosen, behind = closing.opened(chosen)
    rows = as_rows(chosen, samples)
    if rows is None and output is not None:
        raise InvalidInputError(
            f"output={_said(output)} gives {shown(chosen)}; wanted ({samples}, K); {_ADVICE}"
        )
    return Output(raw, rows, behind)


_ADVICE = (
    "name the logits with open_model(model, output=...): a key, an attribute, an index, or a "
    "function that makes (N, K) of the model's output"
)


def no_classifier(returned: str, samples: int) -> InvalidInputError:
    """Return the error for a model that does not return logits."""
    return InvalidInputError(
        f"the model returns {returned}, not logits of shape ({samples}, K); say what to explain "
        "with target=lambda out: ..., a scalar or (N,) tensor made of what the model returns; or "
        f"{_ADVICE}"
    )


def features_first(raw: Any, first: Tensor, other: Tensor) -> InvalidInputError:
    """Return the error for a model that seems to return features and then the logits."""
    return InvalidInputError(
        f"the model returns {shown(raw)}, and makes {shown(other)} of {shown(first)}, which is "
        f"before it and may be features; {_ADVICE}"
    )


def shown(raw: Any) -> str:
    """Return an output for people: types and shapes."""
    if isinstance(raw, Tensor):
        return f"a {str(raw.dtype).removeprefix('torch.')} tensor of shape {tuple(raw.shape)}"
    if isinstance(raw, Mapping):
        inside = ", ".join(f"{key!r}: {shown(value)}" for key, value in list(raw.items())[:6])
        return f"a {type(raw).__name__} with {inside or 'nothing'}"
    if isinstance(raw, tuple | list):
        inside = ", ".join(shown(value) for value in raw[:6])
        return f"a {type(raw).__name__} of {inside or 'nothing'}"
    return "None" if raw is None else f"a {type(raw).__name__}"


def _said(output: Any) -> str:
    """Return what the user has said of the output, for people."""
    return getattr(output, "__name__", "function") if callable(output) else repr(output)


def _values(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    if isinstance(output, tuple | list):
        return list(output)
    if is_dataclass(output) and not isinstance(output, type):
        return [getattr(output, one.name) for one in fields(output)]
    return []


def _chosen(raw: Any, output: str | int | Callable[[Any], Any] | None) -> Any:
    if output is None:
        return raw
    if callable(output):
        return output(raw)
    try:
        if isinstance(output, str) and not isinstance(raw, Mapping):
            return getattr(raw, output)
        return raw[output]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"output={output!r} is not in {shown(raw)}, which the model returns; {_ADVICE}"
        ) from error


def logits_of(raw: Any) -> Tensor | None:
    """Return what is taken for the logits if nobody has said where they are."""
    if isinstance(raw, Tensor):
        return raw
    named = raw.get("logits") if isinstance(raw, Mapping) else getattr(raw, "logits", None)
    return named if isinstance(named, Tensor) else first_tensor(raw)


def as_rows(logits: Tensor, samples: int) -> Tensor | None:
    """Return logits as (N, K), or None if they are something else."""
    if not logits.is_floating_point() or not logits.numel():
        return None
    if logits.ndim == 1:
        return logits.reshape(samples, -1) if samples in {1, len(logits)} else None
    if logits.ndim < 2 or len(logits) != samples or logits.shape[1:].numel() != logits.shape[1]:
        return None
    return logits.flatten(1)


def numpy_of(tensor: Tensor) -> Any:
    """Return a tensor's values as a float32 array."""
    return tensor.detach().to(torch.float32).cpu().numpy()
