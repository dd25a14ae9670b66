"""``python -m tinytrain_dist VERB ...``: the same door as the console command ``tinytrain``."""

from tinytrain_dist.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
