"""Pixels in, logits out. Each network has its address here: lab.models.deep."""

from lab.models.networks import *  # noqa: F403
from lab.models.own import own  # noqa: F401
