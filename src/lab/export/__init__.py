"""A trained network as files for a device, and whether they answer as it does."""
