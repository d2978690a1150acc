"""Run the command line: python -m robustplug."""

from .cli import main

if __name__ == "__main__":
    main()
