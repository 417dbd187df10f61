"""The page that one hands in: a folder's results in one file, read from what was saved."""
