"""The only place that runs the model: hooks, gradient mode, training flags, compiled parts.

What is put on the model is there for the time of one call, acts in the thread of that call alone,
and is taken off again whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from threading import Lock, get_ident
from typing import Any

import torch
from torch import Tensor, nn

from cfcam_core.errors import CfcamError, InvalidInputError
from cfcam_torch._models import is_compiled

Action = Callable[[Any], Any]
"""Takes what a module returns; returns what to put in its place, or None to leave it."""


def run(
    model: nn.Module,
    feeds: Mapping[str, Any],
    actions: Sequence[tuple[nn.Module, Action]] = (),
    *,
    record: bool = False,
) -> Any:
    """Run the model on inputs by name, and the actions on what modules return.

    To be called inside `undisturbed`.

    Parameters
    ----------
    model : nn.Module
    feeds : mapping of str to Tensor
        Inputs by the name of the parameter; names such as ``"0"`` are passed by position. The
        model gets copies, which it may change.
    actions : sequence of (nn.Module, callable)
    record : bool
        Whether gradients are recorded from the start; else from where an action turns it on.

    Raises
    ------
    InvalidInputError
        The model fails on these inputs; the cause is kept.
    """
    with torch.set_grad_enabled(record), _hooked(actions):
        own = {name: v.clone() if isinstance(v, Tensor) else v for name, v in feeds.items()}
        positional = [value for name, value in own.items() if name.isdigit()]
        named = {name: value for name, value in own.items() if not name.isdigit()}
        try:
            return model(*positional, **named)
        except (CfcamError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise _failed(error, model, feeds) from error


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run what is inside in evaluation mode, eagerly, and outside the caller's inference mode."""
    modules = modules_of(model)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(_evaluating(modules))
        stack.enter_context(_eager() if any(map(is_compiled, modules)) else nullcontext())
        yield


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return a model's modules, itself first, each once."""
    found, seen = [model], {id(model)}
    for module in found:  # grows on the way
        for inside in module._modules.values():  # noqa: SLF001 - ten times as fast as modules()
            if inside is not None and id(inside) not in seen:
                seen.add(id(inside))
                found.append(inside)
    return found


@contextmanager
def _hooked(actions: Sequence[tuple[nn.Module, Action]]) -> Iterator[None]:
    thread, is_on = get_ident(), True
    handles = []

    def hook_of(action: Action) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            del module, args
            return action(output) if is_on and get_ident() == thread else None

        return hook

    try:
        for module, action in actions:
            handles.append(module.register_forward_hook(hook_of(action)))
        yield
    finally:
        is_on = False  # another thread may be compiling the model, and keep what it found on it
        for handle in handles:
            handle.remove()


def restarted(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return a tensor that gradients can be taken of, and what to hand on in its place.

    That is a copy, so that what follows in place does not overwrite it. From here on the run
    records gradients, also where the model has switched that off.
    """
    torch.set_grad_enabled(True)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = tensor
        if not tensor.requires_grad:
            leaf = tensor.clone() if tensor.is_inference() else tensor.detach()
            leaf.requires_grad_()
        return leaf, leaf.clone()


_lock = Lock()
_calls: list[dict[int, nn.Module]] = []
"""Which modules, by their id, each call keeps from training; the last one out lets them go."""


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Switch modules to evaluation for as long as any call needs it."""
    ours: dict[int, nn.Module] = {}
    try:
        with _lock:
            _calls.append(ours)
            for module in modules:
                if getattr(module, "training", False) or _is_held(module, ours):
                    ours[id(module)] = module
                    module.training = False
        yield
    finally:
        try:
            _let_go(ours)
        except KeyboardInterrupt:  # of all times
            _let_go(ours)
            raise


def _let_go(ours: dict[int, nn.Module]) -> None:
    with _lock:
        _calls[:] = [one for one in _calls if one is not ours]
        for module in ours.values():
            module.training = not _is_held(module, ours)


def _is_held(module: nn.Module, ours: Mapping[int, nn.Module]) -> bool:
    """Return whether a call other than ours keeps a module from training."""
    return any(id(module) in one for one in _calls if one is not ours)


_stances: list[Any] = []
_eager_lock = Lock()
_eager_calls = 0


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled modules as they were written: into compiled code no hook can look.

    The switch is torch's and holds for all threads, so the last call out turns it back.
    """
    global _eager_calls  # noqa: PLW0603 - the switch is global, too
    with _eager_lock:
        if not _eager_calls:
            _stances.append(torch.compiler.set_stance("force_eager"))
            _stances[-1].__enter__()
        _eager_calls += 1
    try:
        yield
    finally:
        with _eager_lock:
            _eager_calls -= 1
            if not _eager_calls:
                _stances.pop().__exit__(None, None, None)


def _failed(error: Exception, model: nn.Module, feeds: Mapping[str, Any]) -> InvalidInputError:
    """Return the error for a model that fails on its inputs."""
    if "nference tensor" in str(error):
        return InvalidInputError(
            "the model holds tensors made under torch.inference_mode, of which no gradient can be "
            "taken; build the model, or copy.deepcopy it, outside of inference_mode"
        )
    came = ", ".join(
        f"{'' if name.isdigit() else f'{name}: '}{tuple(getattr(value, 'shape', ()))}"
        for name, value in feeds.items()
    )
    advice = "; transpose it with axes (0, 3, 1, 2)" if _is_turned(model, feeds) else ""
    return InvalidInputError(
        f"the model fails on inputs {came}: {type(error).__name__}: {error}{advice}"
    )


def _is_turned(model: nn.Module, feeds: Mapping[str, Any]) -> bool:
    """Return whether the first input seems to have its channels last, and should have them first.

    The first convolution tells how many they are.
    """
    first = next((one for one in model.modules() if isinstance(one, nn.Conv2d)), None)
    came = next((value for value in feeds.values() if isinstance(value, Tensor)), None)
    if first is None or came is None or came.ndim != 4:
        return False
    return bool(came.shape[1] != first.in_channels == came.shape[3])
