"""The checks of each notebook's exercises, a module for each notebook."""
