"""Device memory, streams, events and graphs behind one interface: cuda-python or PyCUDA, whichever is there."""
