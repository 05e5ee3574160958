"""From the table to what it says: intervals, verdicts, findings in words, figures, galleries.

Knows tables, and runs nothing: every number of a notebook, of a page or of the README is computed here from records:
`study.table.collect` makes the table, `estimates` the means and intervals, `comparisons` sets arms beside each other,
`verdicts` judges, `findings` says it in words, `plots` draws, `pages` writes a study's page. To add a figure: a
function of a table that returns it.
"""
