"""Does the kernel work in a fork of a process whose threads read weights?"""

import subprocess
import sys

PROGRAM = """
import os, signal, torch
from faultsim import Chip, corrupt
torch.set_num_threads(2)
weights = torch.zeros(1_000_000, dtype=torch.int8)
whole = corrupt(weights, Chip(1), bit_error_rate=0.01).numpy().tobytes()
if (child := os.fork()) == 0:
    signal.alarm(60)
    again = corrupt(weights, Chip(1), bit_error_rate=0.01).numpy().tobytes()
    os._exit(again != whole)
raise SystemExit(os.waitpid(child, 0)[1])
"""


def test_a_fork_reads_as_its_parent():
    """It has none of the threads that read for its parent, and does not wait for them."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
