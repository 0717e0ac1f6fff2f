"""What all tests share. Threads are bounded before torch is imported: workers share few cores."""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TENSORBOARD_NO_TENSORFLOW", "1")
