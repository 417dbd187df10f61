"""What the commands are made of, a wing a folder; a wing imports only those that stand above it here.

errors, files, download    the ground, and decode
config, models, display    what may be told; pixels in, logits out; figures, tables, pages
datasets, runs, cli        images in memory; what a run leaves; from a command line to a config
evaluation                 what predictions are worth
training                   one run
experiments, export        many runs; files for a device
report                     the page that one hands in
"""

import os

# read when torch is imported: how often a thread that waits looks again before it sleeps; without it 300,000 times,
# which takes the core from a neighbour
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "10000"
