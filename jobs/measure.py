"""Time layers and steps on the machine this runs on; needs no Ray.

python jobs/measure.py out=/an/absolute/path.csv --quick
"""

import sys

from tinytrain_dist.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["measure", *sys.argv[1:]]))
