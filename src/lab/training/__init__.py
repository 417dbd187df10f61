"""One run: prepared, trained, tested, written; and read again with its weights."""

import gc

gc.disable()  # what is imported is no garbage: to look for some would take a fifth of a command's start
import pytorch_lightning  # noqa: E402, F401

gc.freeze()
gc.enable()
