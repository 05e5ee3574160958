"""A grid of runs: what is in it, carrying it out, what is left on disk, one table of it.

`study.StudyConfig` says what, `grid` lists the runs, `driver` carries them out on an `engines` engine,
which hands data sets to its workers (`sharing`), or on a Ray `cluster`. What is to be done stands in
`waiting`, where runs that begin alike wait for their warm-up; `position` is how far it is. `store` keeps
records, and the driver alone writes them; `table.collect` reads them. Knows nothing of figures.
"""
