"""The console's pages, a module for each subject; they read, and change nothing."""
