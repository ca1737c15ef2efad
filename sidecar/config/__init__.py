"""Read the YAML file and its secrets into a frozen, typed configuration, or say every problem at once."""
