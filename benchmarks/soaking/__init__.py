"""The parts of `soak.py`: what is asked, how answers are judged, what is watched meanwhile."""
