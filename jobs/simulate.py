"""Adapt to target tasks and price them on devices.

ray job submit --working-dir . -- python jobs/simulate.py experiment=quickstart run.root=/an/absolute/path
"""

import sys

from tinytrain_dist.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["simulate", *sys.argv[1:]]))
