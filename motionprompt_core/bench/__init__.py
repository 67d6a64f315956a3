"""`python -m motionprompt_core bench`: what guidance costs beside plain sampling."""
