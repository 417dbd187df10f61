"""Many runs, each known by its command line and its folder. Their own process does without torch."""
