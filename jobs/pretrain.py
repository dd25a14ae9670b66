"""Pre-train a backbone, alone or by a teacher.

ray job submit --working-dir . -- python jobs/pretrain.py experiment=pretrain_distill run.root=/an/absolute/path
"""

import sys

from tinytrain_dist.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["pretrain", *sys.argv[1:]]))
