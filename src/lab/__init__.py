"""What the commands are made of: folders, each of which imports only those above it here.

errors, files, download, decode    the ground
config, models, display            what a command may be told; networks; figures, tables, pages
datasets, runs, cli                images in memory; what a run leaves; from a command line to a config
evaluation                         what predictions are worth
training                           one run
experiments, export                many runs; files for a device
report                             the page to hand in
"""

import os

# how often a waiting thread of torch looks again before it sleeps, read when torch is imported; the default, 300,000
# times, takes the core from other processes
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "10000"
