"""Search a static scheme for sparse_update on meta-validation tasks.

ray job submit --working-dir . -- python jobs/search_static.py --backbone mcunet --budget-memory-bytes 1000000 \
    --out /an/absolute/path/scheme.yaml
"""

import sys

from tinytrain_dist.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["search-static", *sys.argv[1:]]))
