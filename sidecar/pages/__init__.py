"""The few pages that people see, and the same answers as JSON for programs."""
