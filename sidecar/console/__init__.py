"""The operators' web pages, on a listener of their own: look at everything, change a few things, nothing unaudited."""
