"""Labels corrected by hand: the page, its store of actions, and the table of corrections."""
