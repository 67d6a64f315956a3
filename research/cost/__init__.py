"""What guidance costs beside plain sampling."""
