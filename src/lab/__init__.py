"""What the commands are made of, a wing a folder; a wing imports only those that stand above it here.

errors, files, download    the ground
config, models, display    what may be told; pixels in, logits out; figures and tables
datasets, runs, cli        images in memory; what a run leaves; from a command line to a config
evaluation                 what predictions are worth
training                   one run
experiments, export        many runs; files for a device
"""

import os

# read when torch is imported: threads that wait then sleep, and leave the cores of a shared machine to those at work
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
