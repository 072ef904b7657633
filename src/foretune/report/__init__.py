"""FLOOR 5: what a reader sees. ``page`` writes report.html, ``markdown`` the model card. No torch."""
