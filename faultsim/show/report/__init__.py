"""Run directories as one HTML page that needs nothing else: no network, no other file.

document.py   what a page says: sections of facts, charts and tables; plain values, no markup
collect.py    directories -> the runs in them: sweeps.py (with sweep_files.py) and training.py know those that faultsim
              itself writes, the command line adds readers of others
charts.py     a chart -> SVG that matplotlib draws, in the page's colors, with values under every point
page.py       sections -> the page (page.html, page.css, page.js)
report_file.py  directories -> an HTML file: all of it in one call
"""
