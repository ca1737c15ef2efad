"""The checks across sections, one module for each part of the configuration."""
