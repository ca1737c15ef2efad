"""Ask engines of fine-grained policy, after the rules have let somebody in."""
