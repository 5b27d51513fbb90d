"""Models, data sets, partitions, and the task that joins them."""
