"""From a trained network to the files that boards load. Native code runs in child processes."""
