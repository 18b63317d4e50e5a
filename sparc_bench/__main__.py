"""`python -m sparc_bench`, which is what torchrun starts: `torchrun --nproc-per-node 2 -m sparc_bench train RECIPE`."""

import sys

from sparc_bench.cli import main

sys.exit(main())
