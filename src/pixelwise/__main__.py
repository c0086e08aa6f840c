"""Run the command line as `python -m pixelwise`."""

from pixelwise.cli import main

if __name__ == "__main__":
    main()
