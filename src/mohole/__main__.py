"""`python -m mohole`, the same as `mohole`."""

from mohole.cli import main

if __name__ == "__main__":
    main()
