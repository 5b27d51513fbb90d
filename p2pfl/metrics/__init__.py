"""What is measured, as functions of values."""
