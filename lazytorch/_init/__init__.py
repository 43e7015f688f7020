"""Initial values of parameters, computed once."""
