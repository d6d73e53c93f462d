"""`python -m robocache`: the same as the command `robocache`, where that is not on the path."""

from robocache.cli.entry import main

if __name__ == "__main__":
    main()
