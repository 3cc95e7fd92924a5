"""Studies on many machines, or in several processes of one: jobs of Dask workers, written down by one coordinator."""
