"""What was recorded: executed episodes as arrays."""
