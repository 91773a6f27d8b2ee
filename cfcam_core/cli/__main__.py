"""``python -m cfcam_core.cli`` is the command ``cfcam``."""

from cfcam_core.cli import main

if __name__ == "__main__":
    main()
