"""Start-up concerns: configuration and logging. Imported by ``main`` and the command line only."""
