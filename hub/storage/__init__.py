"""Where readings and promises are kept: the port, and the stores behind it."""
