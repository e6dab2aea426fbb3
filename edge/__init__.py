"""The agent in the hamlet: it measures, reports and obeys, and works on when nobody answers."""
