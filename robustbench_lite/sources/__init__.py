"""Models and data from elsewhere, each kind a plugin that is found through an entry point."""
