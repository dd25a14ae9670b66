"""Meta-train a backbone on episodes.

ray job submit --working-dir . -- python jobs/meta_train.py experiment=quickstart run.root=/an/absolute/path
"""

import sys

from tinytrain_dist.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["meta-train", *sys.argv[1:]]))
