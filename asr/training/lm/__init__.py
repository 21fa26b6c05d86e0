"""Training recurrent language models: the network, the text, and a loop of truncated back-propagation through time."""
