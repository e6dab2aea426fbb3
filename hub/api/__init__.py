"""The hub for programs: JSON, one file per noun."""
