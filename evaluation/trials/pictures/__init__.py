"""Pictures of a trial: the rows that its page and Matplotlib's plots share, and the plots."""
