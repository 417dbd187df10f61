"""What predictions are worth, and whether two differ. Without torch."""
