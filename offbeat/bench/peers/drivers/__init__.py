"""Scripts that the Python of a peer's own virtual environment runs by path: they import that peer and no offbeat."""
