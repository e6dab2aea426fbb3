"""The hub for people: pages, one file per task they come to do."""
