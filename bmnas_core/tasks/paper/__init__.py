"""The paper's three tasks, from the data sets' own files, and samples in their formats."""
