"""Building, announcing and loading bundles, and the hot swap."""
