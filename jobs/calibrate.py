"""Fit device profiles to rows of measurements.

ray job submit --working-dir . -- python jobs/calibrate.py rows=/an/absolute/path.csv out=/an/absolute/path
"""

import sys

from tinytrain_dist.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["calibrate", *sys.argv[1:]]))
