"""Pixels in, logits out. Each network has its address here: lab.models.deep."""

from lab.models.networks import *  # noqa: F403
