"""From the workstation to a board: bundle what it needs, flash it over SSH, bring the rows home."""
