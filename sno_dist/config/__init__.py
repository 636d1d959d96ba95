"""What to compute: the typed schema (the only home of defaults) and how it is loaded."""
