"""The embedded demo: a sprite world with known truth and a tiny text-to-video model that learned it."""
