"""An evaluation -> a folder that shows a person where the net fails."""
