"""A lazy module before it is built."""
