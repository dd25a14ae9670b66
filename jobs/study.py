"""Run a named set of simulations and write what they say together.

ray job submit --working-dir . -- python jobs/study.py criteria run.root=/an/absolute/path \
    backbone.weights=/an/absolute/path/mcunet.safetensors
"""

import sys

from tinytrain_dist.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["study", *sys.argv[1:]]))
