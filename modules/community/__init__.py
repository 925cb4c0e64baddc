"""Community detection on graphs: networks, baselines, loss and overlap."""
