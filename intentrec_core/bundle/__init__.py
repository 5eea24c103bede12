"""Bundles and model folders: format, contents, verification, stores."""
