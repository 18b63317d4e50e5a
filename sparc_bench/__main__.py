"""`python -m sparc_bench`, for torchrun: `torchrun --nproc-per-node 2 -m sparc_bench train RECIPE`."""

import sys

from sparc_bench.cli.app import main

sys.exit(main())
