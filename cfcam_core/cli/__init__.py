"""The command ``cfcam``. Needs the extra ``[cli]``, imported only when `main` runs."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal, as shells have it."""


def main() -> None:
    """Run the command line; without Typer and Rich, say how to get them and exit with 2."""
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "3"
    )  # all but the first lines of TensorFlow's log
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names the terminal cannot show
    try:
        import rich  # noqa: F401 - used later; missed now rather than halfway

        from cfcam_core.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {"typer", "rich", "click"}:
            raise
        sys.stderr.write(
            f"cfcam: the command line needs {error.name}, which is not installed; "
            'run: pip install "cfcam[cli]"\n'
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("cfcam: stopped\n")
        raise SystemExit(INTERRUPTED) from None
    app(prog_name="cfcam")
