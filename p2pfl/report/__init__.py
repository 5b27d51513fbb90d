"""A run's record as tables, plots and one HTML page, and as it happens, in the terminal."""
