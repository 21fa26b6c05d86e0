"""Pages to look at in a browser, each one file that needs nothing else: templates, and what draws them."""
