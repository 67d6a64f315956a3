"""The scoreboard: the demo model with MotionPrompt against controls and peers, paired by prompt and seed."""
