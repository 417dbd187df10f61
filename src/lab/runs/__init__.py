"""What a run leaves, and reading it again. A folder may be a stranger's: nothing in it is run. Without torch."""
