"""The paper's tables and figures, reproduced.

reproduction   `reproduce`: one table or figure, from the arguments to the values
computed       what needs no trained model: Tables 6 to 8, Figure 2 (as a `Reproduction`: comparison)
cells, result  what one measured accuracy is about; the file that holds it
rows, words    published rows and our results; both as text
settings       how a run directory is trained
plan, budget   steps to the results; their cost, and which of them are worth the time
actions, run   one step; all missing steps in a run directory
figures        Figures 2 to 6 as files
status         how much is reproduced, how far off
report         a run directory in a report (faultsim.show.report)
"""
