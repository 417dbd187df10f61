"""What a command may be told: keys, their types, the values that make sense. Without torch."""
