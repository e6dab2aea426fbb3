"""What edge and hub agreed on: no I/O, no loops, and it imports neither of them."""
