"""The paper's three tasks, from the data sets' files or from samples in the same formats."""
