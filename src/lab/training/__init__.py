"""One run: prepared, trained, tested, written; and read again with its weights."""
