"""Pictures and files: what every part of the core needs and the method is not about."""
