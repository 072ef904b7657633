"""Recommenders raced on recorded runs: what is held out, the laps, and what may be said of them."""
