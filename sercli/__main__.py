"""``python -m sercli`` is ``ser``."""

from sercli.cli import main

if __name__ == "__main__":
    main(prog_name="ser")
