"""Read people from files, databases, directories and programs."""
