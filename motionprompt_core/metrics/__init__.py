"""What a video's motion is like in numbers."""
