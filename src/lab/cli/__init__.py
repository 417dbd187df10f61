"""From a command line to a config, and from an exception to a line. Without torch."""
