"""Arrays in, a figure or a table out. Without torch."""
